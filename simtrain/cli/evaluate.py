"""``simtrain evaluate`` and ``simtrain evaluate-embeddings``: exact retrieval on a test set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from simtrain.cli import evaluation_options as by
from simtrain.cli.inputs import load_model, read_samples, roles
from simtrain.cli.options import AsJson, BatchSize, CacheFolder, Columns, ModelFolder
from simtrain.cli.output import answering, check_parent, plain_json
from simtrain.errors import ConfigError


def evaluate(
    model: ModelFolder,
    data: by.TestData,
    kind: by.Kind = "pairs",
    column: Columns = None,
    split: Annotated[str, typer.Option(help="Which judgements of a folder of BEIR.")] = "test",
    k: by.Depths = None,
    batch_size: BatchSize = 32,
    cache: CacheFolder = None,
    expand_queries: by.ExpandQueries = 0,
    augment_gallery: by.AugmentGallery = 0,
    pca: by.Pca = None,
    whiten: by.Whiten = False,
    rerank: by.Rerank = False,
    denominator: by.Divisor = "min_k_relevant",
    empty: by.Unmatched = "skip",
    errors: by.Errors = 0,
    leaks: by.Leaks = None,
    subset_queries: by.SubsetQueries = None,
    repeats: by.Repeats = 5,
    seed: by.Seed = 0,
    output: by.Output = None,
    scores: Annotated[
        Path | None, typer.Option(help="Also write each query's scores to this JSON file, for `simtrain compare`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure exact retrieval of a saved model on a test set, with 95 % intervals."""
    with answering(as_json) as answer:
        from simtrain.evaluation import evaluate_subsets, retrieval_task
        from simtrain.evaluation.query_scores import scores_by_query
        from simtrain.evaluation.retrieval import encode_task
        from simtrain.evaluation.text_files import draft

        check_parent(output)
        check_parent(scores)
        if leaks is not None and not errors:
            raise ConfigError("--leaks is part of the error analysis: say how much of it to show with --errors N")
        if subset_queries is not None and (errors or scores is not None):
            raise ConfigError("--errors and --scores are of the whole test set: leave --subset-queries out")
        words = {"post": by.post_processing(expand_queries, augment_gallery, pca, whiten, rerank)}
        words.update(by.formed(denominator, empty))
        samples, depths = read_samples(data, kind, roles(column), split), k or (1, 5, 10)
        train = None if leaks is None else read_samples(leaks, kind, roles(column))
        loaded = load_model(model, cache)
        if subset_queries is None:
            task = retrieval_task(samples)
            task.check_matched(empty)
            embeddings = encode_task(loaded, task, batch_size=batch_size)
            result = task.score(*embeddings, k=depths, **words)
            figures, text = result.as_dict(), by.result_text(result, empty)
            if scores is not None:
                scores_by_query(result, task.queries, task.query_names).save(scores)
            if errors:
                figures["errors"] = by.analysed(loaded, task, embeddings, errors, train, batch_size)
                text += by.errors_text(figures["errors"])
        else:
            words.update(k=depths, batch_size=batch_size)
            several = evaluate_subsets(loaded, samples, subset_queries, repeats, seed, **words)
            figures, text = several.as_dict(), several.table()
        if output is not None:
            with draft(output) as file:
                file.write(json.dumps(plain_json(figures), indent=2) + "\n")
        answer(figures, text)


def evaluate_embeddings(
    data: by.TestData,
    embeddings: Annotated[Path, typer.Argument(help="Of the queries or items: .npy, .npz, .safetensors, a folder.")],
    gallery: Annotated[Path | None, typer.Argument(help="Of the documents, for pairs; a row for each line.")] = None,
    kind: by.Kind = "pairs",
    column: Columns = None,
    k: by.Depths = None,
    expand_queries: by.ExpandQueries = 0,
    augment_gallery: by.AugmentGallery = 0,
    pca: by.Pca = None,
    whiten: by.Whiten = False,
    rerank: by.Rerank = False,
    denominator: by.Divisor = "min_k_relevant",
    empty: by.Unmatched = "skip",
    output: by.Output = None,
    as_json: AsJson = False,
) -> None:
    """Measure embeddings that were saved (simtrain encode), without a model."""
    with answering(as_json) as answer:
        from simtrain.evaluation import evaluate_embeddings as measure

        check_parent(output)
        words = {"post": by.post_processing(expand_queries, augment_gallery, pca, whiten, rerank)}
        words.update(by.formed(denominator, empty))
        result = measure(read_samples(data, kind, roles(column)), embeddings, gallery, k or (1, 5, 10), **words)
        if output is not None:
            result.save(output)
        answer(result.as_dict(), by.result_text(result, empty))
