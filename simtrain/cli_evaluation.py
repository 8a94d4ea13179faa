"""What ``simtrain evaluate`` and its sisters share: post-processing, error analysis, saved embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

ExpandQueries = Annotated[int, typer.Option(help="Neighbours to add to each query (alpha-QE).", min=0)]
AugmentGallery = Annotated[int, typer.Option(help="Neighbours to add to each gallery item.", min=0)]
Pca = Annotated[int | None, typer.Option(help="Dimensions to keep of a PCA fitted on the gallery.", min=1)]
Whiten = Annotated[bool, typer.Option(help="Whiten by the gallery.")]
Rerank = Annotated[bool, typer.Option(help="Re-rank by k-reciprocal neighbours.")]
Errors = Annotated[int, typer.Option(help="Show so many of the worst queries, confused classes, ...", min=0)]
Leaks = Annotated[Path | None, typer.Option(help="Training file: near-duplicates of it are shown with --errors.")]


def evaluate_embeddings(
    data: Annotated[Path, typer.Argument(help="CSV or JSONL file.", show_default=False)],
    embeddings: Annotated[Path, typer.Argument(help="Of the queries or items: .npy, .npz, .safetensors, a folder.")],
    gallery: Annotated[Path | None, typer.Argument(help="Of the documents, for pairs; a row for each line.")] = None,
    kind: Annotated[str, typer.Option(help="'pairs', 'groups' or 'query_gallery'.")] = "pairs",
    column: Annotated[list[str] | None, typer.Option("--column", help="ROLE=NAME. Repeatable.")] = None,
    k: Annotated[list[int] | None, typer.Option("-k", help="Depth of the metrics at k. Repeatable.")] = None,
    expand_queries: ExpandQueries = 0,
    augment_gallery: AugmentGallery = 0,
    pca: Pca = None,
    whiten: Whiten = False,
    rerank: Rerank = False,
    output: Annotated[Path | None, typer.Option(help="Also write figures and intervals to this JSON file.")] = None,
) -> None:
    """Measure embeddings that were saved (simtrain encode), without a model."""
    from simtrain.cli import _check_parent, _read_samples, _roles
    from simtrain.evaluation import evaluate_embeddings as measure

    _check_parent(output)
    post = post_processing(expand_queries, augment_gallery, pca, whiten, rerank)
    result = measure(_read_samples(data, kind, _roles(column)), embeddings, gallery, k or (1, 5, 10), post=post)
    show_result(result)
    if output is not None:
        result.save(output)


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


def show_result(result: Any) -> None:
    """Print the table of a result."""
    from simtrain.evaluation.table import result_table

    typer.echo(result_table(result, list(result.metrics)))
    typer.echo(f"{result.n_queries} queries over {result.n_gallery} items")


def analysed(model: Any, samples: Any, n: int, train: Any, batch_size: int) -> dict[str, Any]:
    """Print what is wrong, and give it as JSON values."""
    from simtrain.evaluation.error_report import error_report
    from simtrain.evaluation.retrieval import encode_task, retrieval_task

    task = retrieval_task(samples)
    others = None
    if train is not None:
        seen = retrieval_task(train)
        queries, gallery = encode_task(model, seen, batch_size=batch_size)
        others = (seen.queries, queries) if gallery is None or seen.gallery is None else (seen.gallery, gallery)
    report = error_report(task, *encode_task(model, task, batch_size=batch_size), n=n, others=others)
    for name, entries in report.items():
        typer.echo(f"\n{name.replace('_', ' ')}: {len(entries)}")
        for entry in entries:
            typer.echo("  " + "  ".join(f"{word}={_short(value)}" for word, value in entry.items()))
    return report


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return f"{value:.3f}" if isinstance(value, float) else repr(value)
