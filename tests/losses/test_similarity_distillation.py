import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from simtrain.data import SimilarityGroupSample, SimilarityPairSample
from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.heads import EmptyHead
from simtrain.losses import SimilarityDistillationLoss, teacher_embeddings
from simtrain.models import SimilarityModel


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(x, teacher, form, temperature, teacher_temperature):
    rows = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        own = torch.stack([cosine_similarity(x[i], x[j], dim=0) for j in others])
        wanted = torch.stack([cosine_similarity(teacher[i], teacher[j], dim=0) for j in others])
        if form == "mse":
            rows.append(((own - wanted) ** 2).mean())
        else:
            target = (wanted / teacher_temperature).softmax(0)
            rows.append((target * (target.log() - (own / temperature).log_softmax(0))).sum())
    return torch.stack(rows).mean()


@pytest.mark.parametrize("form", ["kl", "mse"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_formula(form, seed):
    x, table, items = draw(seed, 6, 3).requires_grad_(), draw(seed + 9, 20, 5), torch.tensor([3, 19, 0, 7, 7, 4])
    expected = by_loops(x, table[items], form, 0.3, 0.6)
    for loss, target in (
        (SimilarityDistillationLoss(table, form, 0.3, 0.6), items),
        (SimilarityDistillationLoss(None, form, 0.3, 0.6), table[items]),
    ):
        value = loss(x, target)
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
        got, wanted = torch.autograd.grad(value, x), torch.autograd.grad(expected, x, retain_graph=True)
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)
        assert loss.figures()["n_active"] == 6


@pytest.mark.parametrize("form", ["kl", "mse"])
@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_degenerate_batches_have_finite_gradients(n, fill, form):
    x = torch.full((n, 3), fill, requires_grad=True)
    loss = SimilarityDistillationLoss(form=form)
    value = loss(x, torch.full((n, 2), fill))
    assert value.isfinite()
    assert torch.autograd.grad(value, x)[0].isfinite().all()
    if n < (3 if form == "kl" else 2) or fill:
        assert float(loss.figures()["n_active"]) == 0  # alone, or as similar as to the teacher


def test_no_table_in_the_checkpoint_and_no_loss_in_eval_mode(tmp_path):
    np.save(tmp_path / "teacher.npy", np.eye(4, dtype=np.float32))
    loss = SimilarityDistillationLoss(tmp_path / "teacher.npy", form="mse")
    assert loss.state_dict() == {}
    assert SimilarityDistillationLoss(**loss.get_config_dict()).target_names == loss.target_names == ("items",)
    x, items = torch.ones(3, 2), torch.tensor([0, 1, 2])
    assert loss(x, items).item() == pytest.approx(1)
    assert loss.eval()(x, torch.tensor([7, 8, 9])) == 0


def test_the_teacher_embeds_items_in_the_order_of_their_numbers():
    teacher = SimilarityModel(PrecomputedEncoder(2), EmptyHead(2))
    groups = [SimilarityGroupSample([float(i), 1.0], i) for i in range(3)]
    assert teacher_embeddings(teacher, groups, batch_size=2)[:, 0].tolist() == [0, 1, 2]
    pairs = [SimilarityPairSample([float(i), 1.0], [10.0 + i, 1.0]) for i in range(3)]
    assert teacher_embeddings(teacher, pairs)[:, 0].tolist() == [0, 1, 2, 10, 11, 12]


@pytest.mark.usefixtures("without_type_checks")
def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"the teacher's embeddings cannot be read from '.*none.npy'"):
        SimilarityDistillationLoss(tmp_path / "none.npy")
    with pytest.raises(ConfigError, match="SimilarityDistillationLoss: unknown form 'l1'"):
        SimilarityDistillationLoss(form="l1")
    loss = SimilarityDistillationLoss(torch.eye(4))
    with pytest.raises(DataError, match="items must name rows 0 to 3 of the teacher's table, got 4"):
        loss(torch.ones(3, 2), torch.tensor([0, 1, 4]))
    with pytest.raises(DataError, match="the teacher's embeddings must be one for each of 3 embeddings, got 2"):
        SimilarityDistillationLoss()(torch.ones(3, 2), torch.ones(2, 2))
