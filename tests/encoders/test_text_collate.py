from __future__ import annotations

from typing import Any

import pytest

from simtrain.encoders.text_collate import check_texts
from simtrain.errors import DataError


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "item 1 must be a text (str), got NoneType None"),
        (float("nan"), "item 1 must be a text (str), got float nan"),
        (["a"], "item 1 must be a text (str), got list ['a']"),
        ("", "item 1 is an empty text ('')"),
        (" \n", "item 1 is an empty text (' \\n')"),
    ],
)
def test_what_is_no_text_is_named(item: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        check_texts(["fine", item])
    assert str(error.value).startswith(message)
