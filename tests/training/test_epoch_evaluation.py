"""Whole data sets measured at the end of each epoch, and the batch-wise metrics beside them."""

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader
from torchmetrics import SumMetric

from simtrain import AttachedMetric, CacheConfig, CacheType, Evaluator, Runner, TrainableModel, evaluate, load_cfg
from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    SimilarityPairSample,
    SimilarityTripletSample,
    TripletSimilarityDataLoader,
)
from simtrain.errors import ConfigError, ContractError, DataError
from simtrain.evaluation import SetRetrieval
from simtrain.losses import TripletLoss
from simtrain.metrics import RetrievalPrecision
from simtrain.training import AttachedEvaluator, build_model
from tests.training.models import group_model, group_samples, pair_model, pair_samples

# Frozen encoders are in eval mode on purpose.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
]

CACHES = [None, CacheConfig(CacheType.CPU)]


def trainer(**options):
    defaults = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return lightning.Trainer(**{**defaults, **options})


def repeated_pairs() -> list[SimilarityPairSample]:
    """Queries with two documents, documents of two queries, and a known mismatch."""
    samples = pair_samples(16)
    more = [SimilarityPairSample(samples[0].obj_a, samples[1].obj_b), SimilarityPairSample("lonely", samples[2].obj_b)]
    return [*samples, *more, SimilarityPairSample(samples[3].obj_a, samples[9].obj_b, score=0.0)]


def triplets() -> list[SimilarityTripletSample]:
    pairs = pair_samples(14)
    return [
        SimilarityTripletSample(pair.obj_a, pair.obj_b, [pairs[-1].obj_b, pairs[row - 1].obj_b][: 1 + row % 2])
        for row, pair in enumerate(pairs[:-1])
    ]


def triplet_model(**parts):
    return group_model(loss=TripletLoss(), **parts)


KINDS = {
    "groups": (group_model, group_samples, GroupSimilarityDataLoader),
    "pairs": (pair_model, repeated_pairs, PairsSimilarityDataLoader),
    "triplets": (triplet_model, triplets, TripletSimilarityDataLoader),
}


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_figures_of_an_epoch_are_those_of_evaluate(kind, prepared, cache):
    make, samples, loader = KINDS[kind]
    model = make(cache=cache, evaluators=SetRetrieval(k=(1, 3)))
    data = loader(samples(), batch_size=5)
    validated = trainer().validate(model, model.setup_dataloader(data, False) if prepared else data, verbose=False)[0]
    expected = evaluate(model.model.eval(), samples(), k=(1, 3)).metrics
    assert expected["recall@3"] < 1
    for name, value in expected.items():
        assert validated[f"{name}_validation"] == pytest.approx(value, abs=1e-6), name


def test_a_sampler_that_gives_items_twice_does_not_change_them():
    model, samples = group_model(evaluators=SetRetrieval(k=1)), group_samples()
    order = [*range(len(samples)), 3, 3, 0]
    loader = GroupSimilarityDataLoader(samples, batch_size=4, sampler=order)
    validated = trainer().validate(model, loader, verbose=False)[0]
    assert validated["map@r_validation"] == pytest.approx(
        evaluate(model.model.eval(), samples).metrics["map@r"], abs=1e-6
    )


def test_checkpoints_and_early_stopping_see_the_figures_of_their_epoch(tmp_path):
    seen = []

    class Note(lightning.Callback):
        def on_validation_end(self, trainer, pl_module):
            seen.append(float(trainer.callback_metrics["mrr_validation"]))

    saved = ModelCheckpoint(tmp_path, "{epoch}", monitor="mrr_validation", mode="max", save_top_k=-1)
    stop = EarlyStopping("mrr_validation", mode="max", patience=1, min_delta=1.0)
    loader = PairsSimilarityDataLoader(pair_samples(), batch_size=8)
    fitted = trainer(max_epochs=9, callbacks=[Note(), stop, saved], enable_checkpointing=True)
    model = pair_model(
        evaluators=Evaluator(SetRetrieval(k=1)), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=3.0)
    )
    fitted.fit(model, loader, loader)
    assert fitted.current_epoch == 2, "nothing gets better by a whole 1.0"
    assert [saved.best_k_models[str(tmp_path / f"epoch={epoch}.ckpt")].item() for epoch in range(2)] == pytest.approx(
        seen
    )
    assert len(set(seen)) == 2, "each epoch has its own figure"


@pytest.mark.parametrize(("loop", "cache"), [("trainer", None), ("auto", CacheConfig(CacheType.CPU))])
def test_the_training_set_is_measured_on_request_and_training_goes_on_as_without(loop, cache):
    samples, weights = pair_samples(), []
    for evaluators in ((), {"seen": AttachedEvaluator(SetRetrieval(k=1), stages="train")}):
        torch.manual_seed(3)
        model = pair_model(cache=cache, evaluators=evaluators)
        loader = PairsSimilarityDataLoader(
            samples, batch_size=7, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(0)
        )
        note = Note("recall@1_train")
        Runner(model, 3, loader, callbacks=[note], cfg={"training": {"loop": loop}}).fit()
        weights.append(model.model.head.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    assert note.seen == [], "it is logged under its name"
    model = pair_model(cache=cache, evaluators=AttachedEvaluator(SetRetrieval(k=1), stages="train"))
    note = Note("recall@1_train")
    Runner(model, 2, PairsSimilarityDataLoader(samples, batch_size=7), callbacks=[note]).fit()
    assert note.seen[-1] == pytest.approx(evaluate(model.model.eval(), samples).metrics["recall@1"])


class Note(Checkpoint):
    """Looks when checkpoints do: after the model's own hooks."""

    def __init__(self, name):
        self.name, self.seen = name, []

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen += [float(trainer.callback_metrics[self.name])] if self.name in trainer.callback_metrics else []


def test_several_test_sets_are_measured_apart_batchwise_and_as_a_whole():
    parts = pair_samples()[:14], pair_samples()[9:]
    loaders = [PairsSimilarityDataLoader(part, batch_size=5) for part in parts]
    metric = AttachedMetric("p", RetrievalPrecision(k=1), on_epoch=True)
    model = pair_model(metrics=metric, evaluators={"set": SetRetrieval(k=1, names=["mrr"])})
    together = trainer().test(model, loaders, verbose=False)
    for number, loader in enumerate(loaders):
        alone = trainer().test(model, loader, verbose=False)[0]
        for name in ("p_test", "set_mrr_test"):
            given = together[number][f"{name}/dataloader_idx_{number}"]
            assert given == pytest.approx(alone[name]), name


@pytest.mark.parametrize("loop", ["trainer", "auto"])
def test_attached_metrics_are_logged_at_every_stage_with_their_options(loop):
    metrics = [
        AttachedMetric("p", RetrievalPrecision(k=1), prog_bar=True, on_epoch=True, on_step=False),
        AttachedMetric("q", RetrievalPrecision(k=2), on_epoch=True),
    ]
    loader = PairsSimilarityDataLoader(pair_samples(), batch_size=6)
    noted = []

    class Bar(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            noted.append({**trainer.progress_bar_metrics, "all": dict(trainer.callback_metrics)})

    model = pair_model(metrics=metrics, cache=CacheConfig(CacheType.CPU))
    runner = Runner(
        model, 1, loader, loader, loader, callbacks=[Bar()], cfg={"training": {"loop": loop, "progress_bar": False}}
    )
    runner.fit()
    assert {"p_train", "p_validation"} <= noted[0].keys()
    assert not [name for name in noted[0] if name.startswith("q_")]
    assert {"p_train", "q_train", "p_validation", "q_validation"} <= noted[0]["all"].keys()
    assert {"p_validation", "q_validation"} <= runner.valid().keys()
    assert {"p_test", "q_test"} <= runner.test().keys()


def test_both_loops_log_the_same_training_figures():
    figures = []
    for loop in ("trainer", "auto"):
        model = pair_model(
            metrics=AttachedMetric("p", RetrievalPrecision(k=1), on_epoch=True, on_step=False),
            evaluators=SetRetrieval(k=1, names=["mrr"]),
            cache=CacheConfig(CacheType.CPU),
        )
        loader = PairsSimilarityDataLoader(pair_samples(), batch_size=4)
        notes = [Note("p_train"), Note("mrr_validation")]
        Runner(model, 2, loader, loader, callbacks=notes, cfg={"training": {"loop": loop}}).fit()
        figures.append([note.seen for note in notes])
    assert len(figures[0][1]) == 2
    assert figures[0] == figures[1]


def test_evaluators_come_from_a_config():
    cfg = {
        "encoders": {"type": "PrecomputedEncoder", "embedding_size": 2},
        "loss": {"type": "MultipleNegativesRankingLoss"},
        "evaluators": {
            "whole": {
                "type": "SetRetrieval",
                "k": [1],
                "names": ["mrr"],
                "stages": ["train", "test"],
                "prog_bar": True,
            },
        },
    }
    model = build_model(load_cfg(cfg))
    [attached] = model._evaluation.attached
    assert [str(stage) for stage in attached.stages] == ["train", "test"]
    assert attached.name == "whole"
    assert attached.log_options == {"prog_bar": True}
    samples = [SimilarityPairSample([1.0, 0.0], [0.9, 0.1]), SimilarityPairSample([0.0, 1.0], [0.2, 0.8])]
    tested = trainer().test(model, PairsSimilarityDataLoader(samples, batch_size=1), verbose=False)[0]
    assert tested["whole_mrr_test"] == 1.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"type": "SetRetrieva"}, "unknown metric .*did you mean 'SetRetrieval'"),
        ({"type": "SetRetrieval", "kk": 1}, "metric 'SetRetrieval' has no setting 'kk'"),
        (
            {"type": "SetRetrieval", "names": ["recal@1"]},
            "SetRetrieval has no figure 'recal@1'; did you mean 'recall@1'",
        ),
        (
            {"type": "SetRetrieval", "stages": ["valid"]},
            "unknown stage 'valid' of an evaluator; did you mean 'validation'",
        ),
        ({"k": 1}, "a metric is given as {'type': NAME"),
    ],
)
def test_a_wrong_config_is_told_before_training(words, message):
    cfg = {
        "encoders": {"type": "PrecomputedEncoder", "embedding_size": 2},
        "loss": {"type": "MultipleNegativesRankingLoss"},
        "evaluators": {"whole": words},
    }
    with pytest.raises(ConfigError, match=message):
        build_model(load_cfg(cfg))


def test_what_cannot_evaluate_is_refused_at_construction():
    with pytest.raises(ConfigError, match=r"an evaluator has the methods process\(data_samples, data_batch\).*got int"):
        pair_model(evaluators=[3])


def test_a_name_that_a_batchwise_metric_has_is_refused():
    model = pair_model(
        metrics=AttachedMetric("mrr", RetrievalPrecision(k=1)), evaluators=SetRetrieval(k=1, names=["mrr"])
    )
    with pytest.raises(
        ContractError, match="an evaluator and a metric of TrainableModel are both logged as 'mrr_valid"
    ):
        trainer().validate(model, PairsSimilarityDataLoader(pair_samples(), batch_size=8), verbose=False)


def test_a_stream_cannot_be_embedded_anew():
    from simtrain.data import SimilarityIterableDataset

    samples = SimilarityIterableDataset(pair_samples)
    model = pair_model(evaluators=AttachedEvaluator(SetRetrieval(), stages="train"))
    with pytest.raises(DataError, match="embeds the training set anew: give a map-style data set"):
        trainer().fit(model, PairsSimilarityDataLoader(samples, batch_size=8))


def test_a_hook_in_a_subclass_names_evaluators():
    class Own(TrainableModel):
        def configure_evaluators(self):
            return {"a": SetRetrieval(k=1, names=["mrr"])}

    model = pair_model()
    own = Own(encoders=model.model.encoders["default"], loss=model.loss)
    tested = trainer().validate(own, PairsSimilarityDataLoader(pair_samples(), batch_size=8), verbose=False)[0]
    assert "a_mrr_validation" in tested


def test_a_plain_loader_without_item_numbers_is_measured_too():
    model = group_model(evaluators=SetRetrieval(k=1))
    validated = trainer().validate(model, DataLoader(group_samples(), batch_size=7, collate_fn=list), verbose=False)[0]
    assert validated["mrr_validation"] == pytest.approx(evaluate(model.model.eval(), group_samples()).metrics["mrr"])


def test_other_torchmetrics_are_counted_once():
    class Rows(SumMetric):
        def update(self, embeddings, **targets):
            super().update(float(len(embeddings)))

    model = group_model(metrics=AttachedMetric("rows", Rows(), on_epoch=True))
    validated = trainer().validate(model, GroupSimilarityDataLoader(group_samples(), batch_size=7), verbose=False)[0]
    assert validated["rows_validation"] == 24


def test_the_sanity_check_of_a_stock_trainer_leaves_no_figure():
    loader = PairsSimilarityDataLoader(pair_samples(12), batch_size=4)
    model, seen = pair_model(evaluators=SetRetrieval(k=1)), []

    class Look(lightning.Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(dict(trainer.callback_metrics))

    fitted = trainer(num_sanity_val_steps=1, callbacks=[Look()])
    fitted.fit(model, loader, loader)
    assert seen == [{}]
    expected = evaluate(model.model.eval(), pair_samples(12)).metrics["mrr"]
    assert float(fitted.callback_metrics["mrr_validation"]) == pytest.approx(expected)
