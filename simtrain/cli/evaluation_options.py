"""What ``simtrain evaluate`` and its sister share: test data, post-processing, error analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

TestData = Annotated[
    Path,
    typer.Argument(
        help="CSV, TSV, JSONL or Parquet file, a folder in BEIR's format, or of images by group.", show_default=False
    ),
]
Depths = Annotated[list[int] | None, typer.Option("-k", help="Depth of the metrics at k. Repeatable.")]
Kind = Annotated[
    str,
    typer.Option(
        help="Of a table 'pairs', 'triplets', 'groups' or 'query_gallery'; of a folder 'beir', 'groups' (images), "
        "'cub200', 'cars196', 'online_products', 'in_shop' or 'inaturalist'."
    ),
]
Divisor = Annotated[
    str,
    typer.Option(
        help="Divisor of map@k, R being a query's relevant items: 'min_k_relevant' (the lesser of k and R, as "
        "sentence-transformers), 'relevant' (R, as trec_eval), 'hits' (those found, as torchmetrics)."
    ),
]
Unmatched = Annotated[
    str,
    typer.Option(help="Queries with nothing to find: 'skip' leaves them out, 'zero' counts them as 0, or 'error'."),
]
SubsetQueries = Annotated[
    int | None, typer.Option(help="Measure random subsets of so many queries, where all are too dear.", min=1)
]
Repeats = Annotated[int, typer.Option(help="How many subsets; their mean and deviation are shown.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of the subsets.")]
Output = Annotated[Path | None, typer.Option(help="Also write figures and intervals to this JSON file.")]
ExpandQueries = Annotated[int, typer.Option(help="Neighbours to add to each query (alpha-QE).", min=0)]
AugmentGallery = Annotated[int, typer.Option(help="Neighbours to add to each gallery item.", min=0)]
Pca = Annotated[int | None, typer.Option(help="Dimensions to keep of a PCA fitted on the gallery.", min=1)]
Whiten = Annotated[bool, typer.Option(help="Whiten by the gallery.")]
Rerank = Annotated[bool, typer.Option(help="Re-rank by k-reciprocal neighbours.")]
Errors = Annotated[int, typer.Option(help="Show so many of the worst queries, confused classes, ...", min=0)]
Leaks = Annotated[Path | None, typer.Option(help="Training file: near-duplicates of it are shown with --errors.")]


def post_processing(expand_queries: int, augment_gallery: int, pca: int | None, whiten: bool, rerank: bool) -> Any:
    """What the options ask for; None for nothing."""
    from simtrain.evaluation import PostProcessing

    post = PostProcessing(
        pca=pca,
        whitening=whiten,
        database_augmentation=augment_gallery,
        query_expansion=expand_queries,
        reranking=rerank,
    )
    return None if post == PostProcessing() else post


def formed(denominator: str, empty: str) -> dict[str, Any]:
    """How figures are formed, checked before anything is read."""
    from simtrain.metrics.formulas import checked_denominator
    from simtrain.metrics.unmatched import checked_empty

    return {"denominator": checked_denominator(denominator), "empty": checked_empty(empty)}


def result_text(result: Any, empty: str) -> str:
    """The table of a result."""
    from simtrain.evaluation.table import result_table

    table = result_table(result, list(result.metrics))
    many = f"{result.n_without_match} more have" if empty == "skip" else f"of these {result.n_without_match} have"
    lonely = f"; {many} nothing to find" if result.n_without_match else ""
    return f"{table}\n{result.n_queries} queries over {result.n_gallery} items{lonely}"


def analysed(model: Any, task: Any, embeddings: Any, n: int, train: Any, batch_size: int) -> dict[str, Any]:
    """What is wrong, as JSON values."""
    from simtrain.evaluation.error_report import error_report
    from simtrain.evaluation.retrieval import encode_task, retrieval_task

    others = None
    if train is not None:
        seen = retrieval_task(train)
        known, searched = encode_task(model, seen, batch_size=batch_size)
        others = (seen.queries, known) if searched is None or seen.gallery is None else (seen.gallery, searched)
    queries, gallery = embeddings
    return error_report(task, queries, gallery, n, others=others)


def errors_text(report: dict[str, Any]) -> str:
    """What is wrong, as lines."""
    lines = []
    for name, entries in report.items():
        lines.append(f"\n\n{name.replace('_', ' ')}: {len(entries)}")
        lines += ["\n  " + "  ".join(f"{word}={_short(value)}" for word, value in entry.items()) for entry in entries]
    return "".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return f"{value:.3f}" if isinstance(value, float) else repr(value)
