"""Hard negatives that were found: as samples, and as a file of triplets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from simtrain.data import SimilarityPairSample, SimilarityTripletSample
from simtrain.errors import ConfigError, DataError, import_extra


@dataclass(frozen=True)
class MinedNegatives:
    """Hard negatives for pairs of query and positive.

    Attributes:
        pairs: Query and positive, both raw items.
        items: The distinct items that were searched.
        rows: Rows in ``items`` of each pair's negatives, nearest first, shape ``(pairs, k)``; -1 where there is none.
        scores: Their cosines with the query, shape ``(pairs, k)``; NaN where there is none.
        positive_scores: The positives' cosines with the query, shape ``(pairs,)``.
    """

    pairs: list[tuple[Any, Any]]
    items: list[Any] = field(repr=False)
    rows: Int64[Tensor, "pairs k"] = field(repr=False)
    scores: Float[Tensor, "pairs k"] = field(repr=False)
    positive_scores: Float[Tensor, " pairs"] = field(repr=False)

    def __len__(self) -> int:
        return len(self.pairs) - self.n_without

    @property
    def n_without(self) -> int:
        """Number of pairs without any negative; samples and files leave them out."""
        return int((self.rows < 0).all(dim=1).sum())

    @property
    def n_short(self) -> int:
        """Number of pairs with fewer negatives than asked for, but some."""
        return int((self.rows < 0).any(dim=1).sum()) - self.n_without

    def triplets(self) -> list[SimilarityTripletSample]:
        """A triplet sample for each pair that has negatives."""
        return [
            SimilarityTripletSample(record["anchor"], record["positive"], record["negatives"])
            for record in self._records()
        ]

    def labelled_pairs(self) -> list[SimilarityPairSample]:
        """Each pair that has negatives with score 1, then the query with each of these with score 0."""
        samples = []
        for record in self._records():
            samples.append(SimilarityPairSample(record["anchor"], record["positive"]))
            samples += [SimilarityPairSample(record["anchor"], negative, 0.0) for negative in record["negatives"]]
        return samples

    def save(self, path: str | Path) -> None:
        """Write the triplets of texts to a file that :func:`simtrain.data.read_triplets` reads, all or nothing.

        Args:
            path: A ``.jsonl`` or a ``.parquet`` file. Columns: ``anchor``, ``positive``, ``negatives`` (a list),
                ``positive_score``, ``negative_scores``.

        Raises:
            ConfigError: The name ends otherwise.
            DataError: An item is no text, or no pair has a negative.
            MissingExtraError: It is a Parquet file, and pyarrow is not installed.
        """
        target = Path(path)
        if target.suffix not in (".jsonl", ".parquet"):
            raise ConfigError(f"mined negatives are saved as .jsonl or .parquet, got {target.name!r}")
        self._check_texts()
        draft = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            write = _write_parquet if target.suffix == ".parquet" else _write_jsonl
            write(draft, self._records())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    def _check_texts(self) -> None:
        if not len(self):
            raise DataError("no pair has a negative left, so there is nothing to save; relax the rules")
        for record in self._records():
            for item in (record["anchor"], record["positive"], *record["negatives"]):
                if not isinstance(item, str):
                    raise DataError(f"only texts can be saved to a file, got a {type(item).__name__}: {item!r:.60}")

    def _records(self) -> Iterator[dict[str, Any]]:
        numbers = zip(self.rows.tolist(), self.scores.tolist(), self.positive_scores.tolist(), strict=True)
        for (query, positive), (rows, scores, positive_score) in zip(self.pairs, numbers, strict=True):
            kept = [(self.items[row], score) for row, score in zip(rows, scores, strict=True) if row >= 0]
            if kept:
                yield {
                    "anchor": query,
                    "positive": positive,
                    "negatives": [item for item, _ in kept],
                    "positive_score": positive_score,
                    "negative_scores": [score for _, score in kept],
                }


def _write_jsonl(file: Path, records: Iterator[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def _write_parquet(file: Path, records: Iterator[dict[str, Any]]) -> None:
    arrow, parquet = import_extra("pyarrow", "data"), import_extra("pyarrow.parquet", "data")
    parquet.write_table(arrow.Table.from_pylist(list(records)), file)
