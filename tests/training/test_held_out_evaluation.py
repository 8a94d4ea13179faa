"""Test sets of the evaluators' own, measured with the model as it is at the end of an epoch."""

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from simtrain import CacheConfig, CacheType, Runner, evaluate, load_cfg
from simtrain.data import GroupSimilarityDataLoader, PairsSimilarityDataLoader, QueryGallery, SimilarityPairSample
from simtrain.errors import ConfigError
from simtrain.evaluation import (
    HeldOutRetrieval,
    JudgedSearch,
    PostProcessing,
    Qrels,
    SetRetrieval,
    evaluate_subsets,
    write_beir,
)
from simtrain.training import AttachedEvaluator, build_model
from tests.training.models import group_model, group_samples, pair_model, pair_samples, words

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
]

TEXTS = words(60, seed=5)
GALLERY = QueryGallery(
    TEXTS[:15],
    TEXTS[5:60],
    [n % 6 for n in range(15)],
    [n % 6 for n in range(5, 60)],
    list(range(15)),
    list(range(5, 60)),
)
JUDGED = JudgedSearch(
    [f"q{n}" for n in range(10)],
    TEXTS[:10],
    [f"d{n}" for n in range(40)],
    TEXTS[10:50],
    Qrels.from_dict({f"q{n}": {f"d{n}": 2, f"d{n + 9}": 1} for n in range(10)}),
)
TESTS = {"gallery": GALLERY, "judged": JUDGED, "groups": group_samples(30), "pairs": pair_samples(12)}


def trainer(**options):
    defaults = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return lightning.Trainer(**{**defaults, **options})


def steep(parameters):
    return torch.optim.SGD(parameters, lr=3.0)


@pytest.mark.parametrize("cache", [None, CacheConfig(CacheType.CPU)])
@pytest.mark.parametrize("kind", TESTS)
def test_the_figures_are_those_of_evaluate_beside_those_of_the_loader(kind, cache):
    own = HeldOutRetrieval(TESTS[kind], k=(1, 3))
    model = pair_model(cache=cache, evaluators={"own": own, "loader": SetRetrieval(k=1, names=["mrr"])})
    loader = PairsSimilarityDataLoader(pair_samples(), batch_size=8)
    seen = trainer().validate(model, loader, verbose=False)[0]
    expected = evaluate(model.model.eval(), TESTS[kind], k=(1, 3)).metrics
    assert 0 < expected["recall@3"] < 1
    assert {f"own_{name}_validation": pytest.approx(value, abs=1e-6) for name, value in expected.items()} == {
        name: value for name, value in seen.items() if name.startswith("own_")
    }
    assert "loader_mrr_validation" in seen
    assert "own_mrr_test" in trainer().test(model, loader, verbose=False)[0]


@pytest.mark.parametrize("with_loader", [True, False])
@pytest.mark.parametrize("loop", ["trainer", "auto"])
def test_checkpoints_and_early_stopping_see_each_epochs_own_figure(tmp_path, loop, with_loader):
    saved = ModelCheckpoint(tmp_path, "{epoch}", monitor="own_mrr_validation", mode="max", save_top_k=-1)
    stop = EarlyStopping("own_mrr_validation", mode="max", patience=2, min_delta=1.0)
    model = pair_model(
        cache=CacheConfig(CacheType.CPU), evaluators={"own": HeldOutRetrieval(GALLERY, k=1)}, optimizer=steep
    )
    loader = PairsSimilarityDataLoader(pair_samples(), batch_size=8)
    figures = []

    class Look(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            figures.append(evaluate(pl_module.cached, GALLERY, k=1).metrics["mrr"])

    Runner(
        model,
        9,
        loader,
        loader if with_loader else None,
        callbacks=[Look(), stop, saved],
        cfg={"training": {"loop": loop, "progress_bar": False}},
    ).fit()
    assert len(figures) == 3, "nothing gets better by a whole 1.0"
    assert len(set(figures)) > 1
    by_epoch = [saved.best_k_models[str(tmp_path / f"epoch={epoch}.ckpt")].item() for epoch in range(3)]
    assert by_epoch == pytest.approx(figures, abs=1e-6)


def test_training_goes_on_as_without_them():
    weights = []
    for evaluators in ((), HeldOutRetrieval(GALLERY), AttachedEvaluator(HeldOutRetrieval(JUDGED), stages="train")):
        torch.manual_seed(3)
        model = pair_model(cache=CacheConfig(CacheType.CPU), evaluators=evaluators)
        loader = PairsSimilarityDataLoader(pair_samples(), batch_size=7, shuffle=True)
        fitted = trainer(max_epochs=3)
        fitted.fit(model, loader, loader)
        weights.append(model.model.head.state_dict())
        assert ("mrr_train" in fitted.callback_metrics) == (len(weights) == 3)
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())


def test_averaged_weights_are_what_is_measured():
    loader = PairsSimilarityDataLoader(pair_samples(), batch_size=8)
    seen: list[float] = []

    class Look(lightning.Callback):
        def on_validation_end(self, trainer, pl_module):
            seen.append(float(trainer.callback_metrics["mrr_validation"]))

    finals = []
    for words_of_cfg in ({}, {"ema": {"decay": 0.6}}):
        model = pair_model(evaluators=HeldOutRetrieval(GALLERY, k=1), optimizer=steep)
        Runner(
            model, 2, loader, loader, callbacks=[Look()], cfg={"training": {**words_of_cfg, "progress_bar": False}}
        ).fit()
        # After training the model has the averaged weights, where there are any.
        finals.append(evaluate(model.model.eval(), GALLERY, k=1).metrics["mrr"])
        assert seen[-1] == pytest.approx(finals[-1], abs=1e-6)
    assert finals[0] != finals[1]


@pytest.mark.parametrize("loop", ["trainer", "auto"])
def test_passes_at_the_end_of_training_epochs_measure_averaged_weights_too(loop):
    samples, weights, figures = pair_samples(), [], []
    for ema in ({}, {"ema": {"decay": 0.6}}):
        torch.manual_seed(3)
        evaluators = {
            "held": HeldOutRetrieval(GALLERY, k=1),  # without a validation loader
            "train": AttachedEvaluator(HeldOutRetrieval(JUDGED, k=1), stages="train"),
            "set": AttachedEvaluator(SetRetrieval(k=1), stages="train"),
        }
        raw = RawWeights()
        model = pair_model(cache=CacheConfig(CacheType.CPU), evaluators=evaluators, optimizer=steep)
        cfg = {"training": {"loop": loop, "progress_bar": False, **ema}}
        Runner(model, 2, PairsSimilarityDataLoader(samples, batch_size=8), callbacks=[raw], cfg=cfg).fit()
        weights.append(raw.seen)
        names = {"held_mrr_validation": GALLERY, "train_mrr_train": JUDGED, "set_mrr_train": samples}
        # After training the model has the averaged weights, where there are any.
        final = {name: evaluate(model.model.eval(), data, k=1).metrics["mrr"] for name, data in names.items()}
        assert {name: raw.logged[name] for name in names} == pytest.approx(final, abs=1e-6)
        figures.append(final)
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True)), "training goes on with its own weights"
    assert all(figures[0][name] != value for name, value in figures[1].items())


class RawWeights(lightning.Callback):
    """The first weights of the head before each epoch, and what is logged in the end."""

    def __init__(self):
        self.seen, self.logged = [], {}

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen.append(next(pl_module.model.head.parameters()).detach().clone())

    def on_train_end(self, trainer, pl_module):
        self.logged = {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_a_sanity_check_does_not_measure():
    calls = []

    class Counted(HeldOutRetrieval):
        def evaluate_model(self, model):
            calls.append(1)
            return super().evaluate_model(model)

    loader = PairsSimilarityDataLoader(pair_samples(12), batch_size=4)
    trainer(num_sanity_val_steps=1, max_epochs=2).fit(pair_model(evaluators=Counted(GALLERY)), loader, loader)
    assert len(calls) == 2


def test_seeded_subsets_give_means_and_deviations():
    own = HeldOutRetrieval(GALLERY, k=1, names=["mrr"], n_queries=6, repeats=4, n_gallery=30, seed=3)
    model = group_model(evaluators={"own": own})
    seen = trainer().validate(model, GroupSimilarityDataLoader(group_samples(), batch_size=8), verbose=False)[0]
    expected = evaluate_subsets(model.model.eval(), GALLERY, 6, 4, 3, k=1, n_gallery=30)
    assert seen["own_mrr_validation"] == pytest.approx(expected.mean["mrr"], abs=1e-6)
    assert seen["own_mrr/deviation_validation"] == pytest.approx(expected.deviation["mrr"], abs=1e-6)
    assert expected.deviation["mrr"] > 0


def test_options_of_evaluate_are_heeded():
    post = PostProcessing(query_expansion=2)
    model = pair_model()
    own = HeldOutRetrieval(JUDGED, k=2, post=post, denominator="relevant", empty="zero")
    expected = evaluate(model.model.eval(), JUDGED, k=2, post=post, denominator="relevant", empty="zero").metrics
    assert own.evaluate_model(model.cached) == pytest.approx(expected)
    assert expected["map@2"] != evaluate(model.model, JUDGED, k=2).metrics["map@2"]


def test_a_config_names_a_folder(tmp_path):
    write_beir(JUDGED, tmp_path)
    cfg = {
        "encoders": {"type": "NgramEncoder", "embedding_size": 8},
        "loss": {"type": "MultipleNegativesRankingLoss"},
        "evaluators": {
            "beir": {"type": "HeldOutRetrieval", "data": str(tmp_path), "names": ["ndcg@10"], "prog_bar": True}
        },
    }
    model = build_model(load_cfg(cfg))
    loader = PairsSimilarityDataLoader([SimilarityPairSample("a", "b"), SimilarityPairSample("c", "d")], batch_size=2)
    seen = trainer().validate(model, loader, verbose=False)[0]
    assert seen["beir_ndcg@10_validation"] == pytest.approx(evaluate(model.model.eval(), JUDGED).metrics["ndcg@10"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["mr"]}, "HeldOutRetrieval has no figure 'mr'; did you mean 'mrr'"),
        ({"names": ["recall@7"]}, "has no figure 'recall@7'"),
        ({"n_queries": 0}, "n_queries should be a positive integer, got 0"),
        ({"repeats": 3}, "repeats and n_gallery are of subsets: say with n_queries how large"),
        ({"denominator": "r"}, "unknown denominator 'r'"),
        ({"kind": "pair", "data": "there.csv"}, "unknown kind of test set 'pair'; did you mean 'pairs'"),
    ],
)
def test_wrong_options_are_told_at_once(options, message):
    with pytest.raises(ConfigError, match=message):
        HeldOutRetrieval(**{"data": GALLERY, **options})
