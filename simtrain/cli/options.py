"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simtrain.cli.completion import complete_override

ModelFolder = Annotated[Path, typer.Argument(help="Folder of a saved model.", show_default=False)]
DataFile = Annotated[
    Path, typer.Argument(help="CSV, TSV, JSONL or Parquet file, each also gzipped but the last.", show_default=False)
]
CacheFolder = Annotated[
    Path | None, typer.Option("--cache", help="Folder of an embedding cache to read from and add to.")
]
BatchSize = Annotated[int, typer.Option(help="Items a batch.", min=1)]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="ROLE=NAME where a column is named otherwise, e.g. document=answer. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; all else goes to stderr.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value on top of the file, e.g. training.epochs=3.", autocompletion=complete_override),
]
