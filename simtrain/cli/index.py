"""``simtrain index``: a search index of the documents of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simtrain.cli.inputs import load_model
from simtrain.cli.options import AsJson, BatchSize, CacheFolder, DataFile, ModelFolder
from simtrain.cli.output import answering


def index(
    model: ModelFolder,
    data: DataFile,
    output: Annotated[Path, typer.Argument(help="Folder of the index.", show_default=False)],
    text_column: Annotated[str, typer.Option(help="Column that is searched.")] = "document",
    batch_size: BatchSize = 32,
    cache: CacheFolder = None,
    as_json: AsJson = False,
) -> None:
    """Embed the documents of a file into an embedded Qdrant index (a folder, no server)."""
    with answering(as_json) as answer:
        from simtrain.data import read_records
        from simtrain.serving import QdrantIndex

        rows = read_records(data, [text_column])
        distinct = list({row[text_column]: row for row in reversed(rows)}.values())[::-1]
        vectors = load_model(model, cache).encode_document(
            [row[text_column] for row in distinct], batch_size=batch_size
        )
        payloads = [{"text": row[text_column], **row} for row in distinct]
        with QdrantIndex.create(output, vectors, payloads, model_path=model) as built:
            figures = {"output": output, "documents": len(built), "dimensions": vectors.shape[1]}
            answer(figures, f"indexed {len(built)} distinct documents in {output}")
