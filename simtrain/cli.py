"""The ``simtrain`` command.

Every command imports what it needs when it runs, so that ``simtrain --help`` answers at once.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from simtrain import cli_cache, cli_compare, cli_evaluation
from simtrain.errors import SimtrainError

EXIT_BAD_INPUT = 2

app = typer.Typer(
    name="simtrain",
    help="Fine-tune similarity-search models, measure them, and search with them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_cache.app)
app.command()(cli_compare.compare)
app.command()(cli_evaluation.evaluate_embeddings)

ModelFolder = Annotated[Path, typer.Argument(help="Folder of a saved model.", show_default=False)]
DataFile = Annotated[Path, typer.Argument(help="CSV or JSONL file.", show_default=False)]
CacheFolder = Annotated[
    Path | None, typer.Option("--cache", help="Folder of an embedding cache to read from and add to.")
]
BatchSize = Annotated[int, typer.Option(help="Items a batch.", min=1)]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="ROLE=NAME where a column is named otherwise, e.g. document=answer. Repeatable."),
]


def main() -> None:
    """Run the command; bad input is one sentence on stderr and exit code 2."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("simtrain").addHandler(handler)
    logging.getLogger("simtrain").setLevel(logging.INFO)
    try:
        app()
    except (SimtrainError, OSError) as error:
        typer.echo(f"simtrain: {error}", err=True)
        sys.exit(EXIT_BAD_INPUT)


def _print_version(wanted: bool | None) -> None:
    if wanted:
        from simtrain import __version__

        typer.echo(f"simtrain {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = None,
) -> None:
    """Options of the command itself."""


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the training job.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value on top of the file, e.g. training.epochs=3.")
    ] = None,
) -> None:
    """Train a model from a config file; with a test file, measure it before and after."""
    from simtrain.evaluation.table import comparison_table
    from simtrain.runner import fit

    result = fit(config, overrides or [])
    if result.before is not None and result.after is not None:
        typer.echo(comparison_table(result.before, result.after, ["hit_rate@1", "hit_rate@10", "mrr"]))
    for stage, seconds in result.seconds.items():
        typer.echo(f"{stage}: {seconds:.1f} s")
    typer.echo(f"saved to {result.model_path}")


@app.command()
def evaluate(
    model: ModelFolder,
    data: DataFile,
    kind: Annotated[str, typer.Option(help="'pairs', 'triplets', 'groups' or 'query_gallery'.")] = "pairs",
    column: Columns = None,
    k: Annotated[list[int] | None, typer.Option("-k", help="Depth of the metrics at k. Repeatable.")] = None,
    batch_size: BatchSize = 32,
    cache: CacheFolder = None,
    expand_queries: cli_evaluation.ExpandQueries = 0,
    augment_gallery: cli_evaluation.AugmentGallery = 0,
    pca: cli_evaluation.Pca = None,
    whiten: cli_evaluation.Whiten = False,
    rerank: cli_evaluation.Rerank = False,
    errors: cli_evaluation.Errors = 0,
    leaks: cli_evaluation.Leaks = None,
    output: Annotated[Path | None, typer.Option(help="Also write figures and intervals to this JSON file.")] = None,
    scores: Annotated[
        Path | None, typer.Option(help="Also write each query's scores to this JSON file, for `simtrain compare`.")
    ] = None,
) -> None:
    """Measure exact retrieval of a saved model on a test file, with 95 % intervals."""
    import json

    from simtrain.errors import ConfigError
    from simtrain.evaluation import evaluate as evaluate_model
    from simtrain.evaluation import retrieval_task
    from simtrain.evaluation.query_scores import scores_by_query
    from simtrain.evaluation.text_files import draft

    _check_parent(output)
    _check_parent(scores)
    if leaks is not None and not errors:
        raise ConfigError("--leaks is part of the error analysis: say how much of it to show with --errors N")
    post = cli_evaluation.post_processing(expand_queries, augment_gallery, pca, whiten, rerank)
    samples = _read_samples(data, kind, _roles(column))
    train = None if leaks is None else _read_samples(leaks, kind, _roles(column))
    loaded = _load(model, cache)
    result = evaluate_model(loaded, samples, k=k or (1, 5, 10), batch_size=batch_size, post=post)
    cli_evaluation.show_result(result)
    figures = result.as_dict()
    if errors:
        figures["errors"] = cli_evaluation.analysed(loaded, samples, errors, train, batch_size)
    if output is not None:
        with draft(output) as file:
            file.write(json.dumps(figures, indent=2) + "\n")
    if scores is not None:
        scores_by_query(result, retrieval_task(samples).queries).save(scores)


@app.command()
def encode(
    model: ModelFolder,
    data: DataFile,
    output: Annotated[Path, typer.Argument(help="Where to write the embeddings (.npy).", show_default=False)],
    text_column: Annotated[str, typer.Option(help="Column that holds the texts.")] = "text",
    batch_size: BatchSize = 32,
    cache: CacheFolder = None,
) -> None:
    """Embed a column of a file; writes a float32 array with a row for each line."""
    import numpy as np

    from simtrain.data import read_records
    from simtrain.errors import ConfigError

    if output.suffix != ".npy":
        raise ConfigError(f"embeddings are written as .npy, got the name {str(output)!r}")
    _check_parent(output)
    texts = [row[text_column] for row in read_records(data, [text_column])]
    embeddings = _load(model, cache).encode(texts, batch_size=batch_size)
    np.save(output, embeddings)
    typer.echo(f"wrote {embeddings.shape[0]} embeddings of {embeddings.shape[1]} dimensions to {output}")


@app.command()
def index(
    model: ModelFolder,
    data: DataFile,
    output: Annotated[Path, typer.Argument(help="Folder of the index.", show_default=False)],
    text_column: Annotated[str, typer.Option(help="Column that is searched.")] = "document",
    batch_size: BatchSize = 32,
    cache: CacheFolder = None,
) -> None:
    """Embed the documents of a file into an embedded Qdrant index (a folder, no server)."""
    from simtrain.data import read_records
    from simtrain.serving import QdrantIndex

    rows = read_records(data, [text_column])
    distinct = list({row[text_column]: row for row in reversed(rows)}.values())[::-1]
    vectors = _load(model, cache).encode_document([row[text_column] for row in distinct], batch_size=batch_size)
    payloads = [{"text": row[text_column], **row} for row in distinct]
    with QdrantIndex.create(output, vectors, payloads, model_path=model) as built:
        typer.echo(f"indexed {len(built)} distinct documents in {output}")


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="Folder of an index.", show_default=False)],
    query: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="How many hits.", min=1)] = 5,
    show: Annotated[str, typer.Option(help="Column of the indexed file to print.")] = "text",
    model: Annotated[Path | None, typer.Option(help="Model folder; default: the index's own.")] = None,
) -> None:
    """Search an index with a text."""
    from simtrain.errors import DataError, ServableError, nearest
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
        loaded = SimilarityModel.load(folder)
        hits = opened.search(loaded.encode_query(query), k=k)[0]
    for rank, hit in enumerate(hits, 1):
        if show not in hit.payload:
            raise DataError(f"the index has no column {show!r}; {nearest(show, hit.payload)}")
        typer.echo(f"{rank:2d}. {hit.score:.3f}  {hit.payload[show]}")


def _read_samples(data: Path, kind: str, columns: dict[str, str]) -> Any:
    from simtrain.data import read_groups, read_pairs, read_query_gallery, read_triplets
    from simtrain.errors import ConfigError, nearest

    readers: dict[str, Any] = {"pairs": read_pairs, "triplets": read_triplets, "groups": read_groups}
    if kind == "query_gallery":
        return read_query_gallery(data, None, columns)
    if kind not in readers:
        raise ConfigError(f"unknown --kind {kind!r}; {nearest(kind, [*readers, 'query_gallery'])}")
    return readers[kind](data, columns)


def _check_parent(output: Path | None) -> None:
    from simtrain.errors import ConfigError

    if output is not None and not output.parent.is_dir():
        raise ConfigError(f"cannot write {str(output)!r}: there is no folder {str(output.parent)!r}; make it first")


def _load(model: Path, cache: Path | None) -> Any:
    from simtrain.models import SimilarityModel

    loaded = SimilarityModel.load(model)
    if cache is None:
        return loaded
    from simtrain.cache import CacheConfig, CachedModel

    return CachedModel(loaded, CacheConfig(save_dir=cache))


def _roles(words: list[str] | None) -> dict[str, str]:
    from simtrain.errors import ConfigError

    for word in words or []:
        if "=" not in word:
            raise ConfigError(f"--column is written ROLE=NAME (document=answer), got {word!r}")
    return dict(word.split("=", 1) for word in words or [])


if __name__ == "__main__":
    main()
