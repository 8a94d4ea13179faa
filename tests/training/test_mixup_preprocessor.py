import math
from collections import namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from simtrain.errors import ConfigError, ContractError, DataError
from simtrain.training.data_preprocessor import ComposedDataPreprocessor, NamedFieldsPreprocessor
from simtrain.training.mixup_preprocessor import MixUpDataPreprocessor

Batch = namedtuple("Batch", ["inputs", "labels"])


def batch_of(count=6, classes=4, seed=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, 2, 3, generator=generator).to(dtype),
        torch.randint(0, classes, (count,), generator=generator),
    )


def paper(inputs, labels, classes, alpha, seed):
    """Sample by sample, with the same draws."""
    torch.manual_seed(seed)
    lam = torch.distributions.Beta(*torch.tensor([alpha, alpha], dtype=torch.float64)).sample().item()
    order = torch.randperm(len(inputs)).tolist()
    shares = torch.zeros(len(inputs), classes, dtype=torch.float64)
    blended = torch.zeros(inputs.shape, dtype=torch.float64)
    for i, j in enumerate(order):
        blended[i] = lam * inputs[i].double() + (1 - lam) * inputs[j].double()
        shares[i, labels[i]] += lam
        shares[i, labels[j]] += 1 - lam
    return blended, shares


@given(seed=st.integers(0, 1000), alpha=st.sampled_from([0.2, 1, 1.0, 8.0]), count=st.integers(1, 6), raw=st.booleans())
def test_it_is_the_formula(seed, alpha, count, raw):
    inputs, labels = batch_of(count)
    if raw:
        inputs = (inputs.abs() * 50).to(torch.uint8)
    expected = paper(inputs, labels, 4, alpha, seed)
    torch.manual_seed(seed)
    blended, shares = MixUpDataPreprocessor(4, alpha)((inputs, labels), training=True)
    assert blended.dtype is shares.dtype is torch.float32
    torch.testing.assert_close(blended.double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shares.double(), expected[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_the_shares_follow_the_beta_distribution(alpha):
    preprocessor = MixUpDataPreprocessor(2, alpha)
    blends = [preprocessor((torch.tensor([0.0, 1.0]), [0, 1]), training=True)[0][0].item() for _ in range(1000)]
    shares = torch.tensor([blend for blend in blends if blend > 0])  # in half of the batches each keeps its place
    assert 420 < len(shares) < 580
    assert shares.mean().item() == pytest.approx(0.5, abs=0.05)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


def test_a_restored_generator_goes_on_with_the_same_blends():
    preprocessor, batch = MixUpDataPreprocessor(4, 0.5), batch_of()
    preprocessor(batch, training=True)
    state = torch.get_rng_state()
    first = preprocessor(batch, training=True)
    again = preprocessor(batch, training=True)
    torch.set_rng_state(state)
    restored = preprocessor(batch, training=True)
    assert torch.equal(restored[0], first[0])
    assert not torch.equal(first[0], again[0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "make", [tuple, list, lambda b: Batch(*b), lambda b: {"inputs": b[0], "data_samples": b[1], "names": ["a"]}]
)
def test_the_container_stays_what_it_is(make, training):
    given_batch = make(batch_of())
    torch.manual_seed(1)
    result = MixUpDataPreprocessor(4)(given_batch, training=training)
    torch.manual_seed(1)
    expected = MixUpDataPreprocessor(4)(batch_of(), training=training)
    assert type(result) is type(given_batch)
    values = result
    if isinstance(result, dict):
        assert result["names"] == ["a"]
        assert list(result) == list(given_batch)
        values = result["inputs"], result["data_samples"]
    assert torch.equal(values[0], expected[0])
    assert torch.equal(values[1], expected[1])


def test_outside_training_nothing_is_blended_or_drawn():
    inputs, labels = batch_of()
    state = torch.get_rng_state()
    result = MixUpDataPreprocessor(4)((inputs, labels))
    assert result[0] is inputs
    assert result[1] is labels
    assert torch.equal(torch.get_rng_state(), state)
    assert MixUpDataPreprocessor(4).to("meta")((inputs, ["a"]))[0].device.type == "meta"


def test_the_given_batch_is_not_changed():
    batch = batch_of()
    MixUpDataPreprocessor(4)(batch, training=True)
    assert torch.equal(batch[0], batch_of()[0])
    assert torch.equal(batch[1], batch_of()[1])


@pytest.mark.parametrize(
    "as_labels",
    [
        lambda labels: labels.tolist(),
        list,
        lambda labels: [label.reshape(1) for label in labels],
        lambda labels: labels.to(torch.int32),
        lambda labels: labels.to(torch.uint8),
        lambda labels: tuple(labels.tolist()),
    ],
)
def test_labels_come_as_integers_of_any_kind(as_labels):
    inputs, labels = batch_of()
    results = []
    for form in (labels, as_labels(labels)):
        torch.manual_seed(5)
        results.append(MixUpDataPreprocessor(4)((inputs, form), training=True)[1])
    assert torch.equal(*results)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_cast_model_gets_its_dtype(dtype):
    preprocessor = MixUpDataPreprocessor(4)
    nn.Sequential(preprocessor).to(dtype)
    blended, shares = preprocessor(batch_of(dtype=dtype), training=True)
    assert blended.dtype is shares.dtype is dtype
    blended, shares = preprocessor((torch.ones(2, 3, dtype=torch.uint8), [0, 1]), training=True)
    assert blended.dtype is shares.dtype is dtype


def test_no_samples_are_blended_to_none():
    for labels in (torch.zeros(0, dtype=torch.long), []):
        blended, shares = MixUpDataPreprocessor(4)((torch.zeros(0, 3), labels), training=True)
        assert blended.shape == (0, 3)
        assert shares.shape == (0, 4)


@pytest.mark.parametrize("alpha", [1e-6, 1e-2, 1e6])
def test_extreme_strengths_give_shares_that_add_up(alpha):
    for _ in range(20):
        blended, shares = MixUpDataPreprocessor(4, alpha)(batch_of(), training=True)
        assert torch.isfinite(blended).all()
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(6))


def test_a_chain_from_a_tuple_of_bytes_to_blended_batches():
    chain = ComposedDataPreprocessor(
        [
            NamedFieldsPreprocessor(["inputs", "data_samples"]),
            {"type": "ImageDataPreprocessor", "mean": [127.5], "std": [127.5], "pad_size_divisor": 4},
            MixUpDataPreprocessor(3),
        ]
    )
    images = [torch.full((3, 3, 2), value, dtype=torch.uint8) for value in (0, 255)]
    for training in (True, False):
        batch = chain((images, [torch.tensor(0), torch.tensor(2)]), training=training)
        assert batch["inputs"].shape == (2, 3, 4, 4)
        if training:
            # Image i is -1 and has class 0, or 1 and has class 2: the blend's value tells its shares.
            value = batch["inputs"][:, 0, 0, 0]
            expected = torch.stack([(1 - value) / 2, torch.zeros(2), (1 + value) / 2], dim=1)
            torch.testing.assert_close(batch["data_samples"], expected)
        else:
            assert batch["data_samples"] == [torch.tensor(0), torch.tensor(2)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("on_device", [True, False])
def test_a_seed_gives_the_same_blends_on_a_gpu(on_device):
    torch.manual_seed(7)
    expected = MixUpDataPreprocessor(4)(batch_of(), training=True)
    torch.manual_seed(7)
    batch = tuple(part.cuda() for part in batch_of()) if on_device else batch_of()
    blended, shares = MixUpDataPreprocessor(4).cuda()(batch, training=True)
    assert blended.device.type == shares.device.type == "cuda"
    torch.testing.assert_close(blended.cpu(), expected[0])
    torch.testing.assert_close(shares.cpu(), expected[1])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((torch.ones(2, 3), torch.tensor([0, 4])), r"labels should lie in \[0, 4\), got 4; set num_classes"),
        ((torch.ones(2, 3), [-1, 0]), r"labels should lie in \[0, 4\), got -1"),
        ((torch.ones(2, 3), torch.tensor([0, 1, 2])), r"2 inputs need labels of the shape \(2,\), got \(3,\)"),
        ((torch.ones(2, 3), torch.tensor([[0], [1]])), r"2 inputs need labels of the shape \(2,\), got \(2, 1\)"),
        ((torch.ones(2, 3), torch.tensor(0)), r"2 inputs need labels of the shape \(2,\), got \(\)"),
        ((torch.ones(2, 3), []), r"2 inputs need labels of the shape \(2,\), got \(0,\)"),
        ((torch.ones(2, 3), torch.ones(2)), "labels are class numbers, that is integers, got torch.float32"),
        ((torch.ones(2, 3), torch.tensor([True, False])), "labels are class numbers, that is integers, got torch.bool"),
        ((torch.ones(2, 3),), "mixup takes batches of two fields, inputs and labels, got 1"),
        ((torch.ones(2, 3), [0, 1], 3), "mixup takes batches of two fields, inputs and labels, got 3"),
        ({"inputs": torch.ones(2, 3), "data_samples": None}, "the batch has no data_samples$"),
        ({"images": 1}, "the batch has no inputs and no data_samples$"),
    ],
)
def test_wrong_labels_and_fields_are_an_error(batch, message):
    with pytest.raises(DataError, match=message):
        MixUpDataPreprocessor(4)(batch, training=True)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.ones(2), r"mixup takes a batch \(inputs, labels\) or a dict .* got a Tensor"),
        (
            ([torch.ones(2)], [0]),
            "mixup blends the rows of one tensor, got a list; put an ImageDataPreprocessor before",
        ),
        ((torch.tensor(1.0), [0]), "mixup blends the rows of one tensor, got a single number"),
        ((torch.ones(2), ["a", "b"]), "each label in a list should be one integer, got a str"),
        ((torch.ones(2), [0, 1.5]), "each label in a list should be one integer, got a float"),
        ((torch.ones(1), [torch.tensor([0, 1])]), r"each label in a list should be one integer, got the shape \(2,\)"),
        ((torch.ones(2), "ab"), "labels are an integer tensor or a list of integers, got a str"),
        ((torch.ones(2), {0, 1}), "labels are an integer tensor or a list of integers, got a set"),
    ],
)
def test_a_batch_of_another_kind_breaks_the_contract(batch, message):
    with pytest.raises(ContractError, match=message):
        MixUpDataPreprocessor(4)(batch, training=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a positive integer, got 0"),
        ({"num_classes": 2, "alpha": 0}, "alpha should be a finite number above 0, got 0; to mix nothing, leave mixup"),
        ({"num_classes": 2, "alpha": -1.0}, "alpha should be a finite number above 0, got -1.0"),
        ({"num_classes": 2, "alpha": math.nan}, "alpha should be a finite number above 0, got nan"),
        ({"num_classes": 2, "alpha": math.inf}, "alpha should be a finite number above 0, got inf"),
    ],
)
def test_settings_out_of_range_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        MixUpDataPreprocessor(**words)
