"""Group labels of any hashable kind as numbers, and the file that remembers which number stands for which label."""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from simtrain.errors import DataError

LabelNames = Mapping[int, Hashable]
_KEPT_KINDS = "a text, a number, True, False, or a tuple of these"


def plain_label(label: Any) -> Hashable:
    """A label as Python has it: scalars of numpy and torch lose their wrapping, integers stay exact.

    Raises:
        DataError: It is not hashable, not one value, or not a number (NaN), which equals nothing, not even itself.

    Example:
        >>> import numpy as np
        >>> plain_label(np.int64(16_777_217))
        16777217
    """
    if hasattr(label, "item") and hasattr(label, "dtype"):
        if getattr(label, "ndim", 0) and label.size != 1 and getattr(label, "numel", lambda: 0)() != 1:
            raise DataError(f"a label should be one value, got {type(label).__name__} of shape {tuple(label.shape)}")
        label = label.item()
    try:
        hash(label)
    except TypeError:
        raise DataError(f"a label should be hashable (a text, a number, a tuple), got {label!r:.60}") from None
    if isinstance(label, float) and label != label:
        raise DataError("a label is NaN, which usually means that it is missing; fill it or leave the item out")
    return label  # type: ignore[no-any-return]


def number_labels(
    labels: Sequence[Hashable], label_names: LabelNames | None = None
) -> tuple[list[int], dict[int, Hashable]]:
    """Map labels to integers: integers stay as they are, anything else is numbered by first appearance.

    Args:
        labels: One label an item, as :func:`plain_label` gives them.
        label_names: A mapping from number to label to use instead; it may hold labels that do not appear. ``7`` and
            ``"7"`` are one label for it, unless it holds both.

    Returns:
        One number a label, and the mapping from number to label.

    Raises:
        DataError: A label is not in ``label_names``, or two of its numbers stand for one label.

    Example:
        >>> number_labels(["b", "a", "b"])
        ([0, 1, 0], {0: 'b', 1: 'a'})
        >>> number_labels([7, 7, 2])[0]
        [7, 7, 2]
        >>> number_labels(["a", "b"], {0: "a", 1: "b", 2: "c"})
        ([0, 1], {0: 'a', 1: 'b', 2: 'c'})
    """
    if label_names is not None:
        return _numbers_of(labels, _Numbers(label_names)), dict(label_names)
    if all(_is_group_number(label) for label in labels):
        groups = [int(label) for label in labels]  # type: ignore[call-overload]
        return groups, {group: group for group in groups}
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return [numbers[label] for label in labels], {number: label for label, number in numbers.items()}


def extended(label_names: LabelNames, labels: Sequence[Hashable]) -> dict[int, Hashable]:
    """A mapping with the labels that it lacks added, numbered on from its largest number.

    Example:
        >>> extended({0: "a", 4: "b"}, ["b", "c", "a"])
        {0: 'a', 4: 'b', 5: 'c'}
    """
    known = _Numbers(label_names)
    fresh = [label for label in dict.fromkeys(labels) if known.find(label) is None]
    if all(_is_group_number(label) and label not in label_names for label in fresh):
        # Integers stay as they are, where their numbers are free.
        return {**label_names, **{int(label): label for label in fresh}}  # type: ignore[call-overload]
    first = max(label_names, default=-1) + 1
    return {**label_names, **{first + place: label for place, label in enumerate(fresh)}}


def integers_of_texts(labels: Sequence[Hashable]) -> list[Hashable]:
    """Labels of a file without types: integers, where all of them are written as integers are.

    Example:
        >>> integers_of_texts(["7", "-12"]), integers_of_texts(["7", "007"])
        ([7, -12], ['7', '007'])
    """
    if all(isinstance(label, str) and _says_integer(label) for label in labels):
        return [int(label) for label in labels]  # type: ignore[call-overload]
    return list(labels)


def save_label_names(path: str | Path, label_names: LabelNames) -> None:
    """Write a mapping from number to label as JSON, replacing the file all at once.

    Args:
        path: Where to; its folder must be there.
        label_names: Labels are texts, numbers, True, False, or tuples of these.

    Raises:
        DataError: A label is of another kind, which JSON would not give back as it was.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/labels.json"
        >>> save_label_names(path, {0: "shoes", 1: ("hats", 2)})
        >>> load_label_names(path)
        {0: 'shoes', 1: ('hats', 2)}
    """
    rows = [[int(number), _as_json(plain_label(label))] for number, label in label_names.items()]
    target = Path(path)
    draft = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="ascii") as file:
            json.dump({"simtrain_label_names": 1, "labels": rows}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def load_label_names(path: str | Path) -> dict[int, Hashable]:
    """Read a mapping that :func:`save_label_names` wrote.

    Raises:
        DataError: There is no such file, or something else is in it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["simtrain_label_names"] != 1:
            raise DataError(f"{path} was written by a later version of simtrain")
        names = {_number(number): _from_json(label) for number, label in content["labels"]}
        if len(names) != len(content["labels"]):
            raise ValueError("a number appears twice")
    except FileNotFoundError:
        raise DataError(f"there is no file of label names {str(path)!r}; save_label_names writes one") from None
    except DataError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is not a file of label names that save_label_names wrote: {error}") from error
    _number_of_label(names)
    return names


def _is_group_number(label: Hashable) -> bool:
    # Groups travel as 64-bit integers: a larger number is a name like any other.
    return isinstance(label, int) and not isinstance(label, bool) and -(2**63) <= label < 2**63


def _says_integer(text: str) -> bool:
    return len(text) < 20 and text.removeprefix("-").isdecimal() and str(int(text)) == text


class _Numbers:
    """Number of each label; 7 and ``"7"`` are one label where only one of them is known."""

    def __init__(self, label_names: LabelNames) -> None:
        self.exact = _number_of_label(label_names)
        texts = Counter(map(str, self.exact))
        self._by_text = {str(label): number for label, number in self.exact.items() if texts[str(label)] == 1}

    def find(self, label: Hashable) -> int | None:
        number = self.exact.get(label)
        if number is not None or not (isinstance(label, str) or _is_group_number(label)):
            return number
        return self._by_text.get(str(label))


def _number_of_label(label_names: LabelNames) -> dict[Hashable, int]:
    numbers: dict[Hashable, int] = {}
    for number, label in label_names.items():
        if not _is_group_number(number):
            raise DataError(f"label_names maps numbers to labels, got the key {number!r}")
        if numbers.setdefault(label, number) != number:
            raise DataError(f"label_names gives {label!r} two numbers, {numbers[label]} and {number}")
    return numbers


def _numbers_of(labels: Sequence[Hashable], known: _Numbers) -> list[int]:
    numbers = [known.find(label) for label in labels]
    for index, number in enumerate(numbers):
        if number is None:
            raise DataError(_unknown(labels[index], index, known.exact))
    return cast("list[int]", numbers)


def _unknown(label: Hashable, index: int, known: Iterable[Hashable]) -> str:
    by_text = {str(name): name for name in known}
    close = difflib.get_close_matches(str(label), list(by_text), n=1)
    hint = f"did you mean {by_text[close[0]]!r}?" if close else "none of them is like it."
    return (
        f"element {index} has the label {label!r}, which is not among the {len(by_text)} of label_names; {hint} "
        "Leave label_names out to number the labels anew"
    )


def _as_json(label: Hashable) -> Any:
    if isinstance(label, tuple):
        return [_as_json(plain_label(part)) for part in label]
    if not isinstance(label, (str, int, float)) or label in (float("inf"), float("-inf")):
        raise DataError(f"a label that is saved should be {_KEPT_KINDS}, got {type(label).__name__} {label!r:.60}")
    return label


def _from_json(label: Any) -> Hashable:
    if isinstance(label, list):
        return tuple(_from_json(part) for part in label)
    if not isinstance(label, (str, int, float)):
        raise ValueError(f"a label is {label!r:.60}")
    return label


def _number(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError(f"a number is {number!r:.60}")
    return number
