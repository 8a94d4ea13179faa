"""Class weights, proxies and other parameters of losses are trained, saved and checked, however a model is run."""

import lightning
import pytest
import torch

import simtrain.losses
from simtrain import Runner, TrainableModel, XbmConfig, load_cfg, registry
from simtrain.data import GroupSimilarityDataLoader, SimilarityGroupDataset, SimilarityGroupSample
from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.heads import SkipConnectionHead
from simtrain.losses import (
    ArcFaceLoss,
    CenterLoss,
    ClassWeightLoss,
    CombinedLoss,
    PytorchMetricLearningWrapper,
    SupConLoss,
    TripletLoss,
)
from simtrain.training.build import build_model
from simtrain.training.checkpoint_weights import load_weights
from simtrain.training.loss_parameters import train_loss_parameters

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
]

SIZE, N_GROUPS = 4, 3
ROWS = torch.randn(12, SIZE, generator=torch.Generator().manual_seed(0)).tolist()
LOSSES = {
    "arcface": lambda: ArcFaceLoss(SIZE, N_GROUPS),
    "center": lambda: CenterLoss(SIZE, N_GROUPS),
    "pml": lambda: PytorchMetricLearningWrapper(
        {"type": "pml.ProxyAnchorLoss", "num_classes": N_GROUPS, "embedding_size": SIZE}
    ),
}


def data(n_groups=N_GROUPS, first=0):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(12, SIZE, generator=generator).tolist()
    return SimilarityGroupDataset([(row, first + i % n_groups) for i, row in enumerate(rows)])


def loader(dataset=None):
    return GroupSimilarityDataLoader(dataset or data(), batch_size=6)


class OfItsOwn(TrainableModel):
    """Names encoders and head only, as the documentation of other frameworks does."""

    schedule = False

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        return ([optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]) if self.schedule else optimizer


class Scheduled(OfItsOwn):
    schedule = True


class Both(OfItsOwn):
    def configure_optimizers(self):
        return torch.optim.SGD([*self.model.parameters(), *self.loss.parameters()], lr=0.1)


def make(loss="arcface", kind=TrainableModel, **words):
    loss = LOSSES[loss]() if isinstance(loss, str) else loss
    return kind(encoders=PrecomputedEncoder(SIZE), head=SkipConnectionHead, loss=loss, **words)


def fit(model, dataset=None, **options):
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        **{"enable_checkpointing": False, **options},
    )
    trainer.fit(model, loader(dataset))
    return trainer


def weights_of(model):
    return {name: value.detach().clone() for name, value in model.loss.named_parameters()}


def is_trained(model, before):
    return [not torch.equal(value, before[name]) for name, value in model.loss.named_parameters()]


@pytest.mark.parametrize("kind", [TrainableModel, OfItsOwn, Both])
@pytest.mark.parametrize("loss", LOSSES)
def test_class_weights_are_trained_whatever_the_optimizer_was_given(loss, kind):
    model = make(loss, kind)
    before = weights_of(model)
    trainer = fit(model)
    assert is_trained(model, before) == [True]
    known = [id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]]
    assert len(known) == len(set(known)) == sum(1 for _ in model.parameters())


PML_WORDS = {
    **{
        f"pml.{name}": {"num_classes": N_GROUPS, "embedding_size": SIZE}
        for name in (
            "ArcFaceLoss",
            "CosFaceLoss",
            "LargeMarginSoftmaxLoss",
            "NormalizedSoftmaxLoss",
            "ProxyAnchorLoss",
            "ProxyNCALoss",
            "SoftTripleLoss",
            "SphereFaceLoss",
            "SubCenterArcFaceLoss",
        )
    },
    "pml.P2SGradLoss": {"num_classes": N_GROUPS, "descriptors_dim": SIZE},
    "pml.ManifoldLoss": {"l": SIZE, "K": 3},
    "pml.MarginLoss": {"num_classes": N_GROUPS, "learn_beta": True},
}


BY_CLASSES = [kind for kind in vars(simtrain.losses).values() if isinstance(kind, type)]
BY_CLASSES = [kind.__name__ for kind in BY_CLASSES if issubclass(kind, ClassWeightLoss) and kind is not ClassWeightLoss]


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # the package's own
@pytest.mark.parametrize("name", [*BY_CLASSES, *PML_WORDS, "SupConLoss"])
def test_no_loss_is_left_untrained_by_an_optimizer_of_the_model_alone(name):
    words = {"embedding_size": SIZE, "num_groups": N_GROUPS} if name in BY_CLASSES else PML_WORDS.get(name)
    loss = registry.losses.build({"type": name, **(words or {"temperature": {"initial": 0.1}})})
    parts = (loss, CombinedLoss({"near": TripletLoss(), "own": loss}))
    for given in parts:
        model = make(given, OfItsOwn)
        optimizer = model.configure_optimizers()
        added = train_loss_parameters(model.loss, [optimizer], has_schedule=False)
        assert added == [name for name, _ in model.loss.named_parameters()] != []
        before = {name: value.detach().clone() for name, value in model.loss.named_parameters()}
        results = model.train_step([SimilarityGroupSample(row, i % N_GROUPS) for i, row in enumerate(ROWS)])
        optimizer.zero_grad()
        results["loss"].backward()
        optimizer.step()
        assert all(not torch.equal(value, before[name]) for name, value in model.loss.named_parameters())
        assert {f"_loss.{name}" for name in before} <= set(model.state_dict())


def test_the_runner_trains_them_too(caplog):
    model = make("arcface", OfItsOwn)
    before = weights_of(model)
    Runner(model, epochs=1, train_data_loader=loader()).fit()
    assert is_trained(model, before) == [True]
    assert "no optimizer the parameters of ArcFaceLoss (weights): they were added" in caplog.text


def test_a_schedule_that_would_not_know_of_them_is_refused_at_the_start():
    with pytest.raises(ConfigError, match=r"would never be trained: weights; a schedule is there already.*freeze them"):
        fit(make("arcface", Scheduled))


def test_several_optimizers_are_refused():
    parts = [torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1) for _ in range(2)]
    with pytest.raises(ConfigError, match="never be trained: weights; which of several optimizers they belong to"):
        train_loss_parameters(LOSSES["arcface"](), parts, has_schedule=False)


@pytest.mark.parametrize("kind", [TrainableModel, OfItsOwn, Scheduled])
def test_frozen_on_purpose_stays_frozen(kind):
    model = make("arcface", kind)
    model.loss.requires_grad_(False)
    before = weights_of(model)
    fit(model)
    assert is_trained(model, before) == [False]


@pytest.mark.parametrize("kind", [TrainableModel, OfItsOwn])
def test_they_have_a_rate_of_their_own(kind):
    model = make("arcface", kind, loss_lr=0.7, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    groups = fit(model).optimizers[0].param_groups
    assert [(group["lr"], len(group["params"])) for group in groups] == [
        (0.1, len(list(model.model.parameters()))),
        (0.7, 1),
    ]


def test_a_schedule_moves_both_rates():
    def linear(optimizer, total):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

    model = make("arcface", loss_lr=0.8, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), scheduler=linear)
    rates = [group["lr"] for group in fit(model).optimizers[0].param_groups]
    assert rates == pytest.approx([0.025, 0.2])


def test_the_rate_alone_without_other_parameters():
    model = TrainableModel(encoders=PrecomputedEncoder(SIZE), loss=LOSSES["arcface"](), loss_lr=0.7)
    assert [group["lr"] for group in fit(model).optimizers[0].param_groups] == [0.7]


@pytest.mark.parametrize("wrong", [0, -1.0, float("inf")])
def test_wrong_rates_are_refused(wrong):
    with pytest.raises(ConfigError, match="TrainableModel: loss_lr must be a finite number above zero"):
        make("arcface", loss_lr=wrong)


def test_a_rate_for_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"loss_lr=0.1 is the rate .* own parameters, and SupConLoss has none"):
        make(SupConLoss(), loss_lr=0.1)


def test_a_config_says_the_rate():
    cfg = load_cfg(
        {
            "encoders": {"type": "PrecomputedEncoder", "embedding_size": SIZE},
            "loss": {"type": "ArcFaceLoss", "embedding_size": SIZE, "num_groups": N_GROUPS},
            "loss_lr": 0.25,
        }
    )
    assert build_model(cfg).loss_lr == 0.25


@pytest.mark.parametrize("loss", LOSSES)
def test_a_checkpoint_holds_them_and_a_resumed_run_goes_on(loss, tmp_path):
    model = make(loss, OfItsOwn)
    trainer = fit(model)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    torch.save(model.state_dict(), tmp_path / "weights.pt")

    other = make(loss, OfItsOwn)
    assert not torch.equal(next(other.loss.parameters()), next(model.loss.parameters()))
    assert load_weights(other, tmp_path / "weights.pt") == []
    assert torch.equal(next(other.loss.parameters()), next(model.loss.parameters()))

    straight, resumed = make(loss, OfItsOwn), make(loss, OfItsOwn)
    straight.load_state_dict(other.state_dict())
    resumed_trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    resumed_trainer.fit(resumed, loader(), ckpt_path=tmp_path / "run.ckpt")
    fit(straight)
    for (name, value), twin in zip(resumed.state_dict().items(), straight.state_dict().values(), strict=True):
        assert not isinstance(value, torch.Tensor) or torch.equal(value, twin), name


# ------------------------------------------------------------------------------------- groups and class weights


def test_groups_beyond_num_groups_are_refused_before_the_first_step():
    message = r"ArcFaceLoss has class weights for the groups 0 to 2, got the group 4; set num_groups"
    with pytest.raises(DataError, match=message):
        Runner(make(), epochs=1, train_data_loader=loader(data(5)))
    steps = []
    model = make(optimizer=lambda p: steps.append(p) or torch.optim.SGD(p, lr=0.1))
    before = weights_of(model)
    with pytest.raises(DataError, match=message):
        fit(model, data(5))
    assert is_trained(model, before) == [False]
    subset = torch.utils.data.Subset(data(5), [0, 1, 4])
    with pytest.raises(DataError, match=message):
        fit(model, subset)


def test_groups_that_start_at_one_are_refused_and_label_names_number_them():
    shifted = data(first=1)
    with pytest.raises(DataError, match="got the group 3"):
        Runner(make(), epochs=1, train_data_loader=loader(shifted))
    numbered = SimilarityGroupDataset([(sample.obj, sample.group) for sample in shifted], {0: 1, 1: 2, 2: 3})
    Runner(make(), epochs=1, train_data_loader=loader(numbered)).fit()


def test_validation_on_other_classes_has_no_loss_and_no_error():
    model = make()
    other = loader(data(3, first=50))
    figures = Runner(model, epochs=1, train_data_loader=loader(), valid_data_loader=other).valid()
    assert torch.tensor(figures["validation_loss"]).isnan()
    half = SimilarityGroupDataset([(sample.obj, sample.group + 2) for sample in data()])
    assert torch.tensor(Runner(model, valid_data_loader=loader(half)).valid()["validation_loss"]).isfinite()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_memory_is_refused_when_the_model_is_built(loss):
    with pytest.raises(ConfigError, match="memory"):
        make(loss, xbm=XbmConfig(buffer_size=8))


def test_losses_of_the_package_work_with_a_memory():
    loss = registry.losses.build({"type": "pml.ContrastiveLoss", "miner": {"type": "pml.PairMarginMiner"}})
    model = make(loss, xbm=XbmConfig(buffer_size=8, start_iteration=0))
    samples = [SimilarityGroupSample(torch.randn(SIZE).tolist(), i % 2) for i in range(6)]
    for _ in range(3):
        value = model.train_step(samples)["loss"]
        value.backward()
    assert value.isfinite()


def test_nested_configs_reach_the_model():
    loss = {"type": "pml.CircleLoss", "m": 0.3, "distance": {"type": "pml.CosineSimilarity"}}
    cfg = {"type": "TrainableModel", "encoders": {"type": "PrecomputedEncoder", "embedding_size": SIZE}, "loss": loss}
    assert TrainableModel.from_cfg(cfg).loss.loss.m == 0.3


def test_the_weights_follow_the_model():
    model = make().to(torch.float64)
    assert model.loss.weights.dtype == torch.float64
    model.to("meta")
    assert model.loss.weights.is_meta
