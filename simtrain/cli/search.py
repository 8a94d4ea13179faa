"""``simtrain search``: what an index holds that is near to a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simtrain.cli.options import AsJson
from simtrain.cli.output import answering
from simtrain.errors import DataError, ServableError, nearest


def search(
    index: Annotated[Path, typer.Argument(help="Folder of an index.", show_default=False)],
    query: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="How many hits.", min=1)] = 5,
    show: Annotated[str, typer.Option(help="Column of the indexed file to print.")] = "text",
    model: Annotated[Path | None, typer.Option(help="Model folder; default: the index's own.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search an index with a text."""
    with answering(as_json) as answer:
        from simtrain.models import SimilarityModel
        from simtrain.serving import QdrantIndex

        if not query.strip():
            raise DataError("the query is empty; describe in a few words what you look for")
        if (index / "config.json").is_file() and not (index / "index.json").is_file():
            raise ServableError(f"{index} is a model, not an index; make one with: simtrain index {index} DATA INDEX")
        with QdrantIndex.open(index) as opened:
            folder = model or opened.model_path
            if folder is None:
                raise ServableError(f"the index {str(index)!r} does not say which model made it; give one with --model")
            hits = opened.search(SimilarityModel.load(folder).encode_query(query), k=k)[0]
        for hit in hits:
            if show not in hit.payload:
                raise DataError(f"the index has no column {show!r}; {nearest(show, hit.payload)}")
        lines = [f"{rank:2d}. {hit.score:.3f}  {hit.payload[show]}" for rank, hit in enumerate(hits, 1)]
        found = [{"id": hit.id, "score": hit.score, "payload": dict(hit.payload)} for hit in hits]
        answer({"query": query, "hits": found}, "\n".join(lines))
