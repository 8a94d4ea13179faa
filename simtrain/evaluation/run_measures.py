"""Metrics of a run against judgements: the figures of trec_eval."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from simtrain.errors import ConfigError, DataError, nearest
from simtrain.evaluation.judged_ranks import judged_ranks
from simtrain.evaluation.query_lists import Qrels, Run, as_qrels
from simtrain.evaluation.query_scores import QueryScores
from simtrain.evaluation.run_formulas import RunFormulas

Missing = Literal["zero", "skip", "error"]

#: Name here → names of the same in trec_eval (and pytrec_eval) and in ir_measures.
SPELLINGS = {
    "ndcg": ("ndcg_cut", "nDCG"),
    "map": ("map_cut", "AP"),
    "mrr": ("recip_rank", "RR"),
    "precision": ("P",),
    "recall": ("R",),
    "hit_rate": ("success", "Success"),
    "r_precision": ("Rprec",),
    "bpref": ("Bpref",),
}
NEED_CUT = ("precision", "recall", "hit_rate")
WITHOUT_CUT = ("r_precision", "bpref")
DEFAULT_METRICS = ("ndcg@10", "map", "map@100", "mrr", "precision@10", "recall@100", "hit_rate@10", "r_precision")


def run_metrics(
    run: Run | Mapping[str, Mapping[str, Any]],
    qrels: Qrels | Mapping[str, Mapping[str, Any]],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    relevant_from: int = 1,
    missing: Missing = "zero",
) -> QueryScores:
    """Measure what a search found against judgements; equal to trec_eval, pytrec_eval and ir_measures.

    Documents are ordered by score, descending, as float32; those of equal score by name, descending. Documents that
    were not judged, or have a negative grade, are not relevant. ``map`` and ``map@k`` divide by the number of relevant
    documents. A query of which nothing is relevant scores 0.

    Args:
        run: A run, or query → document → score.
        qrels: Judgements, or query → document → grade. Queries that are not in them are passed over.
        metrics: ``ndcg``, ``map``, ``mrr`` with or without ``@k``; ``precision@k``, ``recall@k``, ``hit_rate@k``;
            ``r_precision``, ``bpref``. Names of trec_eval (``ndcg_cut_10``, ``P_5``, ``recip_rank``, ``success_1``,
            ``Rprec``) and of ir_measures (``nDCG@10``, ``AP``, ``RR@10``) are taken too, and kept.
        relevant_from: Grade from which a document is relevant; ``ndcg`` takes the grades themselves.
        missing: What to do about a judged query that the run lacks: ``"zero"`` counts it with 0 (ir_measures, and
            ``trec_eval -c``), ``"skip"`` leaves it out (pytrec_eval), ``"error"`` refuses.

    Returns:
        Each metric for each judged query, in the order of ``qrels``.

    Raises:
        ConfigError: A metric or an option is not known.
        DataError: Nothing was judged, no judged query is in the run, or one is missing and that is an error.

    Example:
        >>> found = {"q1": {"d1": 0.9, "d2": 0.8}, "q2": {"d3": 0.3}}
        >>> run_metrics(found, {"q1": {"d2": 1}, "q2": {"d3": 2}}, ["mrr", "ndcg@10"]).means["mrr"]
        0.75
    """
    wanted = {name: parsed_metric(name) for name in metrics}
    if missing not in ("zero", "skip", "error"):
        raise ConfigError(f"missing is 'zero', 'skip' or 'error', got {missing!r}")
    if not wanted:
        raise ConfigError("metrics names one metric at least, such as 'ndcg@10'")
    judged = as_qrels(qrels)
    kept = _judged_queries(run.query_ids if isinstance(run, Run) else list(run), judged, missing)
    formulas = RunFormulas(judged_ranks(run, judged), relevant_from)
    scores = {name: _values(formulas, base, cut)[kept] for name, (base, cut) in wanted.items()}
    return QueryScores([judged.query_ids[row] for row in kept], scores)


def parsed_metric(name: str) -> tuple[str, int | None]:
    """Take a metric's name apart.

    Example:
        >>> parsed_metric("ndcg@10"), parsed_metric("P_5"), parsed_metric("recip_rank")
        (('ndcg', 10), ('precision', 5), ('mrr', None))
    """
    parts = re.fullmatch(r"(.+?)(?:[@_](\d+))?", name)
    base, cut = (parts[1], int(parts[2]) if parts[2] else None) if parts else (name, None)
    known = {spelling: ours for ours, others in SPELLINGS.items() for spelling in (ours, *others)}
    if base not in known:
        raise ConfigError(f"unknown metric {name!r}; {nearest(base, SPELLINGS)}, with @k where there is a depth")
    ours = known[base]
    if cut == 0 or (cut is None and ours in NEED_CUT) or (cut is not None and ours in WITHOUT_CUT):
        form = f"{ours}@k with k from 1" if ours not in WITHOUT_CUT else f"{ours} without a depth"
        raise ConfigError(f"the metric is {form}, got {name!r}")
    return ours, cut


def _judged_queries(run: Sequence[str], qrels: Qrels, missing: Missing) -> list[int]:
    judged = [row for row, count in enumerate(np.diff(qrels.start)) if count]
    found = set(run)
    there = [row for row in judged if qrels.query_ids[row] in found]
    if not there:
        raise DataError(
            f"no judged query is in the run: judged are {list(qrels.query_ids[:3])}..., the run has {list(run[:3])}..."
        )
    if missing == "error" and len(there) < len(judged):
        lacking = next(qrels.query_ids[row] for row in judged if qrels.query_ids[row] not in found)
        raise DataError(
            f"the run lacks {len(judged) - len(there)} of {len(judged)} judged queries, such as {lacking!r}; "
            "missing='zero' counts them with 0, missing='skip' leaves them out"
        )
    return judged if missing == "zero" else there


def _values(formulas: RunFormulas, base: str, cut: int | None) -> Any:
    formula = getattr(formulas, base)
    return formula() if base in WITHOUT_CUT else formula(cut)
