"""The folders of BEIR: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from simtrain.errors import DataError, nearest
from simtrain.evaluation.judged_search import JudgedSearch
from simtrain.evaluation.judgement_lines import LineFormat, read_lists
from simtrain.evaluation.query_lists import Qrels
from simtrain.evaluation.text_files import draft, opened

QRELS = LineFormat("qrels", "query-id, corpus-id and score with tabs between", 3, 0, 1, 2, separator="\t", header=True)

_logger = logging.getLogger(__name__)


def read_beir(
    folder: str | Path, split: str = "test", *, title_separator: str = " ", skip_own: bool = True
) -> JudgedSearch:
    """Read a data set in BEIR's format.

    A document's text is its title, the separator and its text, as BEIR's own encoders see it; without a title it is
    the text alone. Of the queries, those are taken that the split has judgements for.

    Args:
        folder: The folder; each file may be gzipped, with ``.gz`` at the end of its name.
        split: Name of the file in ``qrels``.
        title_separator: What stands between title and text.
        skip_own: Whether a query never finds the document of its own name, as BEIR's evaluation has it.

    Returns:
        The search; :func:`simtrain.evaluate` takes it, and its ``pairs()`` are for training.

    Raises:
        DataError: A file or the split is missing, a line is malformed, a name is there twice, or a judged query has no
            text; the message names file and line. Judged documents that the corpus lacks are logged: they count as
            never found.

    Reference:
        Thakur et al.: BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models, 2021.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> qrels = Qrels.from_dict({"q1": {"d1": 1}})
        >>> write_beir(JudgedSearch(["q1"], ["how old"], ["d1"], ["age()"], qrels), folder)
        >>> read_beir(folder).documents
        ['age()']
    """
    root = Path(folder)
    qrels = _read_split(root, split)
    texts = {name: text for name, text, _ in _records(_file(root, "queries.jsonl"))}
    lacking = [name for name in qrels.query_ids if name not in texts]
    if lacking:
        raise DataError(
            f"{root / 'queries.jsonl'} lacks {len(lacking)} of the {len(qrels.query_ids)} queries that the split "
            f"{split!r} judges, such as {lacking[0]!r}"
        )
    documents: dict[str, str] = {}
    for name, text, title in _records(_file(root, "corpus.jsonl")):
        documents[name] = f"{title}{title_separator}{text}".strip() if title else text
    absent = [name for name in qrels.document_ids if name not in documents]
    if absent:
        _logger.warning(
            "%s lacks %d judged documents, such as %r; they count as never found", root, len(absent), absent[0]
        )
    queries = [texts[name] for name in qrels.query_ids]
    return JudgedSearch(list(qrels.query_ids), queries, list(documents), list(documents.values()), qrels, skip_own)


def read_beir_qrels(path: str | Path) -> Qrels:
    """Read judgements from a ``.tsv`` file of BEIR: query, document and grade, with or without a header line.

    Raises:
        DataError: The file is missing or empty, or a line is malformed or repeats a pair; the message names it.
    """
    with opened(Path(path), "qrels") as file:
        first = file.readline().rstrip("\r\n").split("\t")
    return read_lists(Qrels, Path(path), replace(QRELS, header=not _is_number(first[-1])))


def write_beir(search: JudgedSearch, folder: str | Path, split: str = "test") -> None:
    """Write a data set in BEIR's format; what is there already under the same names is replaced.

    Documents are written as texts with an empty title.

    Args:
        search: The texts and judgements.
        folder: The folder, made where it is missing.
        split: Name of the file in ``qrels``.

    Raises:
        DataError: An item is no text, or a name has a tab or a line break in it.
    """
    root = Path(folder)
    for name in (*search.query_ids, *search.document_ids):
        if set(name) & set("\t\n\r") or not name:
            raise DataError(f"names in BEIR's files are not empty and have neither tab nor line break, got {name!r}")
    for item in (*search.queries, *search.documents):
        if not isinstance(item, str):
            raise DataError(f"BEIR's files hold texts, got a {type(item).__name__}: {item!r:.60}")
    (root / "qrels").mkdir(parents=True, exist_ok=True)
    with draft(root / "corpus.jsonl") as file:
        for name, text in zip(search.document_ids, search.documents, strict=True):
            file.write(_line({"_id": name, "title": "", "text": text}))
    with draft(root / "queries.jsonl") as file:
        for name, text in zip(search.query_ids, search.queries, strict=True):
            file.write(_line({"_id": name, "text": text}))
    with draft(root / "qrels" / f"{split}.tsv") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for query, documents, grades in search.qrels.lists():
            file.writelines(f"{query}\t{d}\t{grade}\n" for d, grade in zip(documents, grades.tolist(), strict=True))


def _line(record: dict[str, str]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _file(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{root} has no {name}; a folder of BEIR holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv")


def _read_split(root: Path, split: str) -> Qrels:
    _file(root, "corpus.jsonl")
    path = next((p for p in (root / "qrels" / f"{split}.tsv", root / "qrels" / f"{split}.tsv.gz") if p.is_file()), None)
    if path is None:
        splits = [path.name.split(".tsv")[0] for path in sorted(root.glob("qrels/*.tsv*"))]
        raise DataError(f"{root} has no qrels/{split}.tsv; {nearest(split, splits)}")
    return read_beir_qrels(path)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _records(path: Path) -> Iterator[tuple[str, str, str]]:
    """Name, text and title of each line."""
    known: set[str] = set()
    with opened(path, "texts") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            name, text, title = _record(line, f"{path}, line {number}")
            if name in known:
                raise DataError(f"{path}, line {number}: the _id {name!r} was there before; give each its own")
            known.add(name)
            yield name, text, title
    if not known:
        raise DataError(f"{path} is empty; each line holds an object with '_id' and 'text'")


def _record(line: str, place: str) -> tuple[str, str, str]:
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: no JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{place}: a line holds an object with '_id' and 'text', got a {type(record).__name__}")
    for key in ("_id", "text"):
        if key not in record:
            raise DataError(f"{place}: there is no {key!r}; {nearest(key, map(str, record))}")
    name, text, title = record["_id"], record["text"], record.get("title") or ""
    if not isinstance(name, (str, int)) or not isinstance(text, str) or not isinstance(title, str):
        raise DataError(
            f"{place}: '_id', 'text' and 'title' should be texts, got {name!r:.40}, {text!r:.40}, {title!r:.40}"
        )
    return str(name), text, title
