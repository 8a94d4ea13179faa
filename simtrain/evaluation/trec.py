"""The files of TREC: runs (what a search found) and qrels (what was judged)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from simtrain.errors import DataError
from simtrain.evaluation.judgement_lines import LineFormat, read_lists
from simtrain.evaluation.query_lists import Qrels, Run, as_qrels, as_run
from simtrain.evaluation.text_files import draft

RUN = LineFormat("a run", "query Q0 document rank score tag", 6, 0, 2, 4)
QRELS = LineFormat("qrels", "query 0 document grade", 4, 0, 2, 3)


def read_run(path: str | Path) -> Run:
    """Read a run file: ``query Q0 document rank score tag`` in each line.

    Order follows from the scores alone, as trec_eval has it: ranks and the order of lines are not looked at.

    Args:
        path: The file, gzipped where its name ends in ``.gz``.

    Raises:
        DataError: The file is missing or empty, or a line is malformed, has a score that is no number, or repeats a
            document of its query; the message names file and line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "run.txt")
        >>> _ = path.write_text("q1 Q0 d7 1 0.93 demo")
        >>> read_run(path).to_dict()
        {'q1': {'d7': 0.93}}
    """
    return read_lists(Run, Path(path), RUN)


def read_qrels(path: str | Path) -> Qrels:
    """Read judgements: ``query 0 document grade`` in each line.

    Args:
        path: The file, gzipped where its name ends in ``.gz``.

    Raises:
        DataError: As :func:`read_run`; a grade is an integer.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "qrels.txt")
        >>> _ = path.write_text("q1 0 d7 2")
        >>> read_qrels(path).to_dict()
        {'q1': {'d7': 2}}
    """
    return read_lists(Qrels, Path(path), QRELS)


def write_run(
    run: Run | Mapping[str, Mapping[str, float]], path: str | Path, tag: str = "simtrain", depth: int | None = None
) -> None:
    """Write a run file, the best document of each query first.

    Equal scores are ordered as trec_eval orders them, so that a reader that goes by rank sees the same. Scores are
    written in full: what is read back is equal.

    Args:
        run: The run, or query → document → score.
        path: The file, gzipped where its name ends in ``.gz``; it is written all or nothing.
        tag: Name of the run.
        depth: Write so many documents a query at most. Default: all.

    Raises:
        DataError: A name has white space in it, or is empty.
    """
    _check_names([tag])
    with draft(Path(path)) as file:
        for query, documents, scores in as_run(run).lists():
            _check_names([query, *documents])
            with np.errstate(over="ignore"):
                compared = scores.astype(np.float32).tolist()
            ranked = sorted(zip(compared, documents, scores.tolist(), strict=True), reverse=True)
            for rank, (_, document, score) in enumerate(ranked[:depth], 1):
                file.write(f"{query} Q0 {document} {rank} {score!r} {tag}\n")


def write_qrels(qrels: Qrels | Mapping[str, Mapping[str, int]], path: str | Path) -> None:
    """Write judgements, ``query 0 document grade`` in each line.

    Args:
        qrels: The judgements, or query → document → grade.
        path: The file, gzipped where its name ends in ``.gz``; it is written all or nothing.

    Raises:
        DataError: A name has white space in it, or is empty.
    """
    with draft(Path(path)) as file:
        for query, documents, grades in as_qrels(qrels).lists():
            _check_names([query, *documents])
            file.writelines(f"{query} 0 {d} {grade}\n" for d, grade in zip(documents, grades.tolist(), strict=True))


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if len(name.split()) != 1 or name != name.strip():
            raise DataError(f"names in files of TREC have no white space and are not empty, got {name!r}")
