from __future__ import annotations

import pickle

from simtrain.encoders import ItemError
from simtrain.errors import DataError


def test_item_error_names_the_position_and_survives_a_loader_worker() -> None:
    error = pickle.loads(pickle.dumps(ItemError(7, "is empty")))
    assert isinstance(error, DataError)
    assert str(error) == "item 7 is empty"
    assert error.position == 7
