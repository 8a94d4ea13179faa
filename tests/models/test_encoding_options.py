import numpy as np
import pytest
import torch
from torch import nn

from simtrain.encoders import ModuleEncoder, NgramEncoder, SwitchEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.heads import AsymmetricHead, EmptyHead, LinearHead
from simtrain.models import SimilarityModel

TEXTS = [f"text number {i} " + "and more " * (i % 5) for i in range(23)]


def model():
    torch.manual_seed(0)
    return SimilarityModel(NgramEncoder(16, n_buckets=500), LinearHead(16, 8))


def test_several_processes_give_the_embeddings_of_one():
    made = model().train()
    one, two = made.encode(TEXTS, batch_size=4), made.encode(TEXTS, batch_size=4, processes=2)
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)
    assert made.training
    assert made.encode(TEXTS[:1], processes=4).shape == (1, 8)
    assert made.encode([], processes=2).shape == (0, 8)


def test_several_processes_know_the_sides_and_the_position_of_a_wrong_item():
    made = SimilarityModel(NgramEncoder(8), AsymmetricHead(8, query=LinearHead(8, 4), document=LinearHead(8, 4)))
    expected = made.encode_query(TEXTS, normalize=True)
    np.testing.assert_allclose(made.encode_query(TEXTS, normalize=True, processes=2), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match="item 7 must be a text"):
        model().encode([*TEXTS[:7], 3, *TEXTS[8:]], processes=2)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_autocast_computes_in_the_other_format_and_gives_float32(name):
    made = model()
    plain, cast = made.encode(TEXTS), made.encode(TEXTS, autocast=name)
    assert cast.dtype == np.float32
    assert not np.array_equal(cast, plain)
    np.testing.assert_allclose(cast, plain, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"autocast": "bf16"}, "unknown autocast 'bf16'; did you mean 'bfloat16'"),
        ({"processes": 0}, "processes must be a positive integer, got 0"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    for name in ("encode", "encode_query", "encode_document"):
        with pytest.raises(ConfigError, match=message):
            getattr(model(), name)(TEXTS, **options)


def test_processes_are_for_the_cpu():
    meta = SimilarityModel(ModuleEncoder(nn.Linear(2, 2), 2), EmptyHead(2)).to("meta")
    with pytest.raises(ConfigError, match="processes=2 is for models on the CPU, this one is on meta"):
        meta.encode([torch.ones(2), torch.ones(2)], processes=2)


@pytest.mark.usefixtures("without_type_checks")
def test_a_compiled_model_gives_the_same_embeddings():
    made = model()
    expected = made.encode(TEXTS)
    made.compile(backend="aot_eager", dynamic=True)
    np.testing.assert_allclose(made.encode(TEXTS), expected, rtol=1e-5, atol=1e-6)


class Fragile(ModuleEncoder):
    def forward(self, batch):
        return super().forward(batch).masked_fill(batch < 0, float("nan"))


def test_the_encoder_that_gives_nan_is_named_with_the_item():
    parts = {"safe": ModuleEncoder(nn.Identity(), 2), "weak": Fragile(nn.Identity(), 2)}
    items = [torch.ones(2), torch.ones(2), -torch.ones(2)]
    with pytest.raises(DataError, match=r"item 2 has an embedding with NaN or infinite values from encoder .weak. \(1"):
        SimilarityModel(parts, EmptyHead(4)).encode(items)
    broken = LinearHead(2, 2)
    nn.init.constant_(next(broken.parameters()), float("inf"))
    with pytest.raises(DataError, match="item 0 has an embedding with NaN or infinite values from the head"):
        SimilarityModel(parts["safe"], broken).encode(items)
    switch = SwitchEncoder({"image": parts["weak"], "text": NgramEncoder(2)})
    with pytest.raises(DataError, match=r"item 2 has .* from encoder 'default', option 'image' \(1 of 3"):
        SimilarityModel(switch, EmptyHead(2)).encode(["a", *items[1:]])


class Dropping(ModuleEncoder):
    def forward(self, batch):
        return super().forward(batch)[:1]


@pytest.mark.parametrize("n", [2, 3])
def test_an_encoder_that_leaves_items_out_is_named_and_nothing_is_made_up(n):
    made = SimilarityModel({"short": Dropping(nn.Identity(), 2)}, EmptyHead(2))
    with pytest.raises(DataError, match=rf"gave 1 embeddings for {n} items, by encoder {{'short': 1}}"):
        made.encode([torch.ones(2)] * n)
