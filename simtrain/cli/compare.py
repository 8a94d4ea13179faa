"""``simtrain compare``: two models, two files of results or two runs, query by query."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtrain.cli.evaluation_options import Kind
from simtrain.cli.inputs import read_samples, roles
from simtrain.cli.options import AsJson
from simtrain.cli.output import answering, check_parent, plain_json
from simtrain.errors import ConfigError, DataError

if TYPE_CHECKING:
    from simtrain.evaluation.query_scores import QueryScores

EXIT_WORSE = 1
_WHAT = "a model's folder, a .json file of results by query, or a TREC run file"


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help=f"The one to compare with: {_WHAT}.")],
    b: Annotated[Path, typer.Argument(metavar="B", help=f"The other one: {_WHAT}.")],
    data: Annotated[
        Path | None, typer.Option(help="For models: what `simtrain evaluate` takes, such as a folder in BEIR's format.")
    ] = None,
    kind: Kind = "pairs",
    column: Annotated[
        list[str] | None, typer.Option("--column", help="ROLE=NAME where a column of --data is named otherwise.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which qrels of a BEIR folder.")] = "test",
    qrels: Annotated[
        Path | None, typer.Option(help="For runs: judgements in TREC's format, or in BEIR's (.tsv).")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Metric to compare, such as ndcg@10. Repeatable.")
    ] = None,
    missing: Annotated[
        str, typer.Option(help="Judged queries that a run lacks: 'error', or 'zero' to count them with 0.")
    ] = "error",
    confidence: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    resamples: Annotated[int, typer.Option(help="Resamples of the test and of the interval.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the resampling.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Items a batch while encoding.", min=1)] = 32,
    fail_if_worse: Annotated[
        list[str] | None,
        typer.Option(help="Exit with code 1 if B is worse in this metric and not by chance. Repeatable."),
    ] = None,
    as_json: AsJson = False,
    output: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
) -> None:
    """Compare two systems on the same queries: differences (B minus A), intervals and p-values."""
    from simtrain.evaluation.comparison import compare_scores
    from simtrain.evaluation.text_files import draft

    check_parent(output)
    if missing not in ("error", "zero"):
        raise ConfigError(f"--missing is 'error' or 'zero', got {missing!r}")
    guarded = fail_if_worse or []
    with answering(as_json) as answer:
        test = _Test(data, kind, column, split, qrels, [*(metric or []), *guarded], missing, batch_size)
        scores = [test.scores(path) for path in (a, b)]
        asked = list(dict.fromkeys([*(metric or []), *guarded])) if metric else []
        names = (a.name, b.name) if a.name != b.name else (str(a), str(b))
        found = compare_scores(
            scores[0], scores[1], asked, names, confidence=confidence, n_resamples=resamples, seed=seed
        )
        for name in guarded:
            if name not in found.tests:
                raise DataError(f"--fail-if-worse {name}: there is no such metric; there are {', '.join(found.tests)}")
        worse = [name for name in guarded if found.is_worse(name)]
        values = {**found.to_dict(), "worse": worse}
        if output is not None:
            with draft(output) as file:
                file.write(json.dumps(plain_json(values), indent=2) + "\n")
        answer(values, f"{found.table()}\n{found.n_queries} queries")
    if worse:
        typer.echo(f"{names[1]} is worse in {', '.join(worse)}", err=True)
        raise typer.Exit(EXIT_WORSE)


@dataclass
class _Test:
    """What both are measured on; read when it is first needed, once."""

    data: Path | None
    kind: str
    column: list[str] | None
    split: str
    qrels: Path | None
    metrics: list[str]
    missing: str
    batch_size: int
    _read: Any = None

    def scores(self, path: Path) -> QueryScores:
        """Scores by query of a model, a file of results or a run."""
        from simtrain.evaluation.query_scores import QueryScores

        if path.is_dir():
            return self._of_model(path)
        if not path.is_file():
            raise DataError(f"there is nothing at {str(path)!r}; give {_WHAT}")
        return QueryScores.load(path) if path.suffix == ".json" else self._of_run(path)

    def _of_run(self, path: Path) -> QueryScores:
        from simtrain.evaluation import read_run

        if self.qrels is None:
            raise ConfigError(f"{path} is taken as a TREC run; say with --qrels what is relevant")
        if self._read is None:
            self._read = _read_qrels(self.qrels)
        return self._measured(read_run(path), self._read)

    def _of_model(self, path: Path) -> QueryScores:
        from simtrain.evaluation import JudgedSearch, retrieval_task, search_run
        from simtrain.models import SimilarityModel

        if self.data is None:
            raise ConfigError(f"{path} is taken as a model; say with --data what to measure it on")
        model = SimilarityModel.load(path)
        if self._read is None:
            self._read = read_samples(self.data, self.kind, roles(self.column), self.split)
        if isinstance(self._read, JudgedSearch):
            return self._measured(search_run(model, self._read, batch_size=self.batch_size), self._read.qrels)
        return _of_samples(model, self._read, retrieval_task(self._read).queries, self.metrics, self.batch_size)

    def _measured(self, run: Any, qrels: Any) -> QueryScores:
        from simtrain.evaluation import run_metrics
        from simtrain.evaluation.run_measures import DEFAULT_METRICS

        return run_metrics(run, qrels, list(dict.fromkeys(self.metrics)) or DEFAULT_METRICS, missing=self.missing)  # type: ignore[arg-type]


def _of_samples(model: Any, samples: Any, queries: list[Any], metrics: list[str], batch_size: int) -> QueryScores:
    from simtrain.evaluation import evaluate
    from simtrain.evaluation.query_scores import scores_by_query

    depths = sorted({int(name.partition("@")[2]) for name in metrics if name.partition("@")[2].isdigit()} - {0})
    result = evaluate(model, samples, k=depths or (1, 5, 10), batch_size=batch_size)
    return scores_by_query(result, queries)


def _read_qrels(path: Path) -> Any:
    from simtrain.evaluation import read_qrels
    from simtrain.evaluation.beir import read_beir_qrels

    return read_beir_qrels(path) if path.name.endswith((".tsv", ".tsv.gz")) else read_qrels(path)
