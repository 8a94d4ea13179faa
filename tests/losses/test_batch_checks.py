import pytest
import torch

from simtrain.errors import DataError
from simtrain.losses import ContrastiveLoss, MultipleNegativesRankingLoss, SupConLoss, TripletLoss

pytestmark = pytest.mark.usefixtures("without_type_checks")

GROUP_LOSSES = [TripletLoss(), SupConLoss()]
PAIRWISE_LOSSES = [ContrastiveLoss(), MultipleNegativesRankingLoss()]
X = torch.ones(4, 2)
GROUPS = torch.tensor([0, 0, 1, 1])
PAIRS = torch.tensor([[0, 2], [1, 3]])
LABELS = torch.ones(2)


@pytest.mark.parametrize("loss", GROUP_LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (X[0], GROUPS),
            r"embeddings must be a floating point tensor of shape \(rows, dim\), got float32 of shape \(2,\)",
        ),
        ((X.long(), GROUPS), r"embeddings must be a floating point tensor of .*, got int64 of shape \(4, 2\)"),
        (([[1.0]], GROUPS), "embeddings must be a floating point tensor of .*, got a list"),
        ((X, GROUPS.float()), "groups must be an integer tensor with one entry for each of 4 embeddings, got float32"),
        ((X, GROUPS > 0), "groups must be an integer tensor .*, got bool"),
        ((X, GROUPS[:3]), r"groups must be an integer tensor .*, got int64 of shape \(3,\)"),
        ((X, GROUPS.view(4, 1)), r"groups must be an integer tensor .*, got int64 of shape \(4, 1\)"),
    ],
)
def test_wrong_group_batches_are_refused(loss, arguments, message):
    with pytest.raises(DataError, match=message):
        loss(*arguments)
    with pytest.raises(DataError, match=message):
        loss.memory_loss(*arguments, X, GROUPS)


@pytest.mark.parametrize("loss", GROUP_LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ((X[0], GROUPS), "memory_embeddings must be a floating point tensor"),
        ((torch.ones(3, 5), GROUPS[:3]), "memory_embeddings have 5 dimensions and embeddings 2; build the memory with"),
        ((X, GROUPS[:3]), "memory_groups must be an integer tensor with one entry for each of 4 memory_embeddings"),
        (
            (X, GROUPS, torch.ones(4, 4)),
            r"own must be None or a bool tensor of shape \(batch, memory\) = \(4, 4\), got",
        ),
        ((X, GROUPS, torch.ones(4, 3) > 0), r"own must be None .* got bool of shape \(4, 3\)"),
    ],
)
def test_wrong_memories_are_refused(loss, memory, message):
    with pytest.raises(DataError, match=message):
        loss.memory_loss(X, GROUPS, *memory)


@pytest.mark.parametrize("loss", PAIRWISE_LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X.int(), PAIRS, LABELS, GROUPS), "embeddings must be a floating point tensor"),
        ((X, PAIRS.T[:1], LABELS, GROUPS), None),
        (
            (X, PAIRS.int(), LABELS, GROUPS),
            r"pairs must be an int64 tensor of shape \(n_pairs, 2\), got int32 of shape",
        ),
        ((X, PAIRS[:, 0], LABELS, GROUPS), r"pairs must be an int64 tensor .*, got int64 of shape \(2,\)"),
        (
            (X, PAIRS, LABELS.long(), GROUPS),
            "labels must be a floating point tensor with one score for each of 2 pairs",
        ),
        ((X, PAIRS, LABELS[:1], GROUPS), r"labels must be a floating point tensor .*, got float32 of shape \(1,\)"),
        ((X, PAIRS, LABELS, GROUPS[:2]), "subgroups must be an integer tensor with one entry for each of 4 embeddings"),
        ((X, PAIRS + 1, LABELS, GROUPS), "pairs must name rows 0 to 3 of embeddings, got 4"),
        ((X, PAIRS - 1, LABELS, GROUPS), "pairs must name rows 0 to 3 of embeddings, got -1"),
    ],
)
def test_wrong_pair_batches_are_refused(loss, arguments, message):
    if message is None:  # one pair, two labels
        message = "with one score for each of 1 pairs"
    with pytest.raises(DataError, match=message):
        loss(*arguments)


@pytest.mark.parametrize("loss", GROUP_LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint8])
def test_every_integer_dtype_is_a_group(loss, dtype):
    assert loss(torch.eye(4), GROUPS.to(dtype)) == loss(torch.eye(4), GROUPS)
