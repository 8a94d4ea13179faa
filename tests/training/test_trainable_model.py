import pytest
import torch

from simtrain import (
    AttachedMetric,
    BaseModel,
    CacheConfig,
    CacheType,
    SimilarityModel,
    TrainableModel,
    XbmConfig,
)
from simtrain.data import PairsSimilarityDataLoader, collate_samples
from simtrain.errors import ConfigError, DataError
from simtrain.heads import EmptyHead, SkipConnectionHead
from simtrain.losses import ContrastiveLoss, CoSENTLoss, MultipleNegativesRankingLoss, SupConLoss, TripletLoss
from simtrain.training import AmpOptimWrapper, BaseDataPreprocessor, OptimWrapper
from tests.training.models import BagEncoder, group_model, group_samples, pair_model, pair_samples
from tests.training.stock_trainer import trainer

pytestmark = [
    # Lightning's advice on loaders and on frozen encoders, which are in eval mode on purpose.
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
]


class Subclassed(TrainableModel):
    def __init__(self, lr=1e-2, **parts):
        self.lr = lr
        super().__init__(**parts)

    def configure_encoders(self):
        return {"bag": BagEncoder()}

    def configure_head(self, input_embedding_size):
        return SkipConnectionHead(input_embedding_size)

    def configure_loss(self):
        return MultipleNegativesRankingLoss(scale=self.lr * 1000)

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=self.lr)


def test_hooks_may_read_attributes_set_before_super_init():
    model = Subclassed(lr=0.05)
    assert model.configure_optimizers().param_groups[0]["lr"] == 0.05
    assert list(model.model.encoders) == ["bag"]


def test_a_subclass_and_the_composed_form_take_the_same_steps():
    subclassed = Subclassed(lr=0.02)
    composed = pair_model(
        encoders={"bag": BagEncoder()},
        loss=MultipleNegativesRankingLoss(scale=20.0),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.02),
    )
    composed.load_state_dict(subclassed.state_dict())
    for model in (subclassed, composed):
        torch.manual_seed(3)
        trainer().fit(model, PairsSimilarityDataLoader(pair_samples(), batch_size=8, shuffle=True))
    for name, value in composed.model.head.state_dict().items():
        assert torch.equal(value, subclassed.model.head.state_dict()[name]), name


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"encoders": None}, "needs encoders: pass encoders=… or override configure_encoders"),
        ({"loss": None}, "needs a loss: pass loss=… or override configure_loss"),
        ({"head": EmptyHead(5)}, "give 8 dimensions together, but the head takes 5"),
        ({"xbm": XbmConfig(), "loss": CoSENTLoss()}, "cross-batch memory works with losses that.*CoSENTLoss has none"),
        ({"encoders": BagEncoder(trainable=True), "cache": CacheConfig(CacheType.CPU)}, "trainable"),
        ({"cache": CacheConfig(mapping={"image": CacheType.CPU})}, "image"),
    ],
)
def test_parts_that_do_not_fit_are_refused_at_construction(parts, message):
    with pytest.raises(ConfigError, match=message):
        pair_model(**parts)


def test_a_loss_of_another_kind_is_refused():
    class Wrong(Subclassed):
        def configure_loss(self):
            return torch.nn.MSELoss()

    with pytest.raises(ConfigError, match="the loss should be a SimilarityLoss, got MSELoss"):
        Wrong()


@pytest.mark.usefixtures("without_type_checks")
def test_a_metric_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="'p' should be a torchmetrics Metric, got function"):
        AttachedMetric("p", lambda embeddings: 0)


def test_every_form_of_a_batch_gives_the_same_loss():
    model = pair_model().eval()
    samples = pair_samples(8)
    raw = collate_samples(samples)
    collated = next(iter(model.setup_dataloader(PairsSimilarityDataLoader(samples, batch_size=8))))
    losses = [model.train_step(batch)["loss"].item() for batch in (samples, raw, collated)]
    assert losses[0] == losses[1] == losses[2]


def test_a_step_alone_trains_in_plain_pytorch():
    model = pair_model()
    optimizer = torch.optim.Adam(model.model.head.parameters(), lr=0.3)
    losses = []
    for _ in range(20):
        loss = model.train_step(pair_samples())["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("by_name", [True, False])
def test_a_step_with_an_optim_wrapper_updates_through_it(by_name):
    model, twin = pair_model().eval(), pair_model().eval()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5), clip_grad={"max_norm": 0.1})
    batch = pair_samples(8)
    given = {"optim_wrapper": wrapper} if by_name else {}
    logged = model.train_step(batch, **given) if by_name else model.train_step(batch, wrapper)
    loss = twin.train_step(batch)["loss"]
    loss.backward()
    torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
    torch.optim.SGD(twin.parameters(), lr=0.5).step()
    assert torch.equal(logged["loss"], loss.detach())
    assert logged["grad_norm"] > 0.1
    for name, value in twin.model.head.state_dict().items():
        assert torch.equal(model.model.head.state_dict()[name], value)


def test_a_step_with_a_mixed_precision_wrapper_computes_in_it():
    seen = []
    model = pair_model()
    model.model.head.register_forward_hook(lambda module, given, out: seen.append(torch.is_autocast_enabled("cpu")))
    wrapper = AmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), dtype="bfloat16")
    model.train_step(pair_samples(8), wrapper)
    assert seen == [True]


def test_a_preprocessor_of_its_own_is_given_every_batch_and_told_of_training():
    class Noting(BaseDataPreprocessor):
        seen = []  # noqa: RUF012

        def forward(self, data, training=False):
            features, targets = super().forward(data)
            self.seen.append((sorted(features), sorted(targets), training))
            return features, targets

    model = pair_model(data_preprocessor=Noting(), init_cfg={"type": "Constant", "val": 0.5, "layer": "Linear"})
    model.train_step(pair_samples(4))
    model.valid_step(pair_samples(4))
    assert Noting.seen == [(["default"], ["labels", "pairs", "subgroups"], training) for training in (True, False)]
    assert model.model.head.fc_0.weight.unique().tolist() == [0.5]


def test_a_model_is_built_from_a_config_of_its_parts():
    cfg = {
        "type": "TrainableModel",
        "encoders": {"type": "PrecomputedEncoder", "embedding_size": 4},
        "head": {"type": "SkipConnectionHead"},
        "loss": {"type": "SupConLoss"},
        "optimizer": {"type": "SGD", "lr": 0.5},
        "xbm": {"buffer_size": 8},
        "metrics": {"p": {"type": "RetrievalPrecision", "k": 1}},
    }
    model = BaseModel.from_cfg(cfg)
    assert type(model) is TrainableModel
    assert model.configure_optimizers().param_groups[0]["lr"] == 0.5
    assert model._memory.buffer.get()[0].shape == (0, 4)
    with pytest.raises(ConfigError, match="unknown head type 'SkipHed'"):
        TrainableModel.from_cfg({**cfg, "head": {"type": "SkipHed"}})
    with pytest.raises(ConfigError, match="TrainableModel has no setting 'xmb'; did you mean 'xbm'"):
        TrainableModel.from_cfg({**cfg, "xmb": {}})


def test_val_step_is_valid_step_whichever_a_subclass_overrides():
    class One(Subclassed):
        def val_step(self, batch, *args, **kwargs):
            return {"from": "val_step"}

    class Two(One):
        def valid_step(self, batch, *args, **kwargs):
            return {"from": "valid_step"}

    assert One().valid_step(None) == {"from": "val_step"}
    assert Two().val_step(None) == {"from": "valid_step"}


def test_results_of_validation_hold_what_evaluation_needs():
    result = group_model().valid_step(group_samples(6))
    assert set(result) == {"loss", "embeddings", "targets"}
    assert result["embeddings"].shape == (6, 4)


@pytest.mark.parametrize(
    ("model", "samples", "message"),
    [
        (pair_model, group_samples, "MultipleNegativesRankingLoss takes batches of pairs"),
        (group_model, pair_samples, "TripletLoss takes batches of groups"),
    ],
)
def test_data_of_another_kind_than_the_loss_takes_is_a_clear_error(model, samples, message):
    with pytest.raises(DataError, match=message):
        model().train_step(samples())


def test_a_batch_of_an_unknown_form_is_a_clear_error():
    with pytest.raises(DataError, match=r"a list of samples or \(features, targets\), got int"):
        pair_model().train_step(3)


def test_nothing_to_train_is_an_error_and_not_a_silent_run():
    with pytest.raises(ConfigError, match="nothing can be trained"):
        pair_model(head=EmptyHead).configure_optimizers()


@pytest.mark.parametrize("loss", [TripletLoss(margin=0.3), SupConLoss()])
def test_the_memory_is_full_before_it_is_used_and_then_adds_to_the_loss(loss):
    config = XbmConfig(weight=0.5, buffer_size=16, start_iteration=3)
    with_memory, without = group_model(loss=loss, xbm=config), group_model(loss=loss)
    batches = [group_samples(24)[start : start + 8] for start in (0, 8, 16, 0, 8)]
    pairs = [(with_memory.train_step(b)["loss"].item(), without.train_step(b)["loss"].item()) for b in batches]
    assert all(a == b for a, b in pairs[:3])
    assert all(a != b for a, b in pairs[3:])
    assert with_memory._memory.buffer.is_full


def test_validation_neither_reads_nor_fills_the_memory():
    model = group_model(xbm=XbmConfig(buffer_size=16, start_iteration=0))
    first = model.valid_step(group_samples(8))["loss"].item()
    model.train_step(group_samples(8))
    assert model.valid_step(group_samples(8))["loss"].item() == first
    assert len(model._memory.buffer.get()[0]) == 8


def test_a_checkpoint_holds_the_memory_and_its_clock():
    config = XbmConfig(buffer_size=12, start_iteration=2)
    model, twin = group_model(xbm=config), group_model(xbm=config)
    for _ in range(3):
        model.train_step(group_samples(8))
    twin.load_state_dict(model.state_dict())
    batch = group_samples(20)[8:16]
    assert model.train_step(batch)["loss"].item() == twin.train_step(batch)["loss"].item()


def test_the_servable_gives_the_embeddings_of_the_trained_model(tmp_path):
    model = pair_model(cache=CacheConfig(CacheType.CPU))
    trainer().fit(model, PairsSimilarityDataLoader(pair_samples(), batch_size=8))
    texts = [sample.obj_a for sample in pair_samples()]
    expected = model.model.encode(texts)
    model.save_servable(tmp_path / "model")
    loaded = SimilarityModel.load(tmp_path / "model", allow=[BagEncoder])
    assert abs(loaded.encode(texts) - expected).max() < 1e-6
    assert abs(model.cached.encode(texts) - expected).max() < 1e-6


def test_caching_adds_nothing_to_the_checkpoint():
    plain, cached = pair_model(), pair_model(cache=CacheConfig(CacheType.CPU))
    cached.setup_dataloader(PairsSimilarityDataLoader(pair_samples(), batch_size=8))
    assert list(plain.state_dict()) == list(cached.state_dict())


def test_contrastive_pairs_train_too():
    model = pair_model(loss=ContrastiveLoss())
    trainer().fit(model, PairsSimilarityDataLoader(pair_samples(), batch_size=8))
