"""``simtrain encode``: embeddings of a column of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simtrain.cli.inputs import load_model
from simtrain.cli.options import AsJson, BatchSize, CacheFolder, DataFile, ModelFolder
from simtrain.cli.output import answering, check_parent
from simtrain.errors import ConfigError


def encode(
    model: ModelFolder,
    data: DataFile,
    output: Annotated[Path, typer.Argument(help="Where to write the embeddings (.npy).", show_default=False)],
    text_column: Annotated[str, typer.Option(help="Column that holds the texts.")] = "text",
    batch_size: BatchSize = 32,
    cache: CacheFolder = None,
    as_json: AsJson = False,
) -> None:
    """Embed a column of a file; writes a float32 array with a row for each line."""
    with answering(as_json) as answer:
        import numpy as np

        from simtrain.data import read_records

        if output.suffix != ".npy":
            raise ConfigError(f"embeddings are written as .npy, got the name {str(output)!r}")
        check_parent(output)
        texts = [row[text_column] for row in read_records(data, [text_column])]
        embeddings = load_model(model, cache).encode(texts, batch_size=batch_size)
        np.save(output, embeddings)
        rows, size = embeddings.shape
        answer(
            {"output": output, "rows": rows, "dimensions": size},
            f"wrote {rows} embeddings of {size} dimensions to {output}",
        )
