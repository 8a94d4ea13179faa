from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simtrain.encoders import ModuleEncoder, NgramEncoder, SwitchEncoder, VisionEncoder
from simtrain.errors import DataError
from simtrain.heads import EmptyHead
from simtrain.models import SimilarityModel

pillow = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)


def models() -> list[SimilarityModel]:
    vision = VisionEncoder(nn.Conv2d(3, 4, 4), image_size=8)
    return [
        SimilarityModel(e, EmptyHead(4)) for e in (vision, SwitchEncoder({"image": vision, "text": NgramEncoder(4)}))
    ]


@pytest.mark.parametrize("model", models())
def test_one_image_gives_one_vector(model: SimilarityModel, tmp_path: Path) -> None:
    pillow.fromarray(PIXELS).save(tmp_path / "image.png")
    expected = model.encode([PIXELS])[0]
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    for one in (PIXELS, pillow.fromarray(PIXELS), tmp_path / "image.png", tensor, tensor / 255):
        np.testing.assert_allclose(model.encode(one), expected, atol=1e-6)
    assert model.encode(PIXELS[:, :, 0]).shape == (4,)
    assert model.encode_query(PIXELS).shape == (4,)
    assert model.similarity(PIXELS, [PIXELS, PIXELS]).shape == (1, 2)


@pytest.mark.parametrize("model", models())
@pytest.mark.parametrize("many", [np.stack([PIXELS] * 2), torch.from_numpy(np.stack([PIXELS] * 2)).permute(0, 3, 1, 2)])
def test_many_images_in_one_array_give_a_row_each(model: SimilarityModel, many: Any) -> None:
    np.testing.assert_allclose(model.encode(many), np.repeat(model.encode([PIXELS]), 2, axis=0), atol=1e-6)


def test_no_image_of_that_shape_is_one_error() -> None:
    with pytest.raises(DataError, match=r"^item 0 must be a PIL image.* tensor of torch.float32 of shape \(5, 8, 8"):
        models()[0].encode(torch.zeros(5, 8, 8))


def test_other_encoders_take_the_rows_of_an_array() -> None:
    model = SimilarityModel(ModuleEncoder(nn.Flatten(), 6), EmptyHead(6))
    assert model.encode(torch.zeros(4, 2, 3)).shape == (4, 6)


@pytest.mark.parametrize("model", models())
@pytest.mark.parametrize("none", [np.zeros((0, 3)), np.zeros((0, 8, 3), np.uint8), torch.zeros(0, 8, 8), []])
def test_no_images_give_no_rows(model: SimilarityModel, none: Any) -> None:
    assert model.encode(none).shape == (0, 4)
