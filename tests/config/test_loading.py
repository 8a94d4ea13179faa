import pytest
from omegaconf import OmegaConf

from simtrain import load_cfg
from simtrain.config import named_encoders, require
from simtrain.errors import ConfigError

JOB = """
encoders: {type: PrecomputedEncoder, embedding_size: 4}
loss: {type: MultipleNegativesRankingLoss, scale: 30}
training: {epochs: 3}
"""


def test_a_file_is_merged_into_the_defaults_and_overrides_win(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    cfg = load_cfg(path, ["training.epochs=5", "loss.scale=10", "data.train=a.csv"])
    assert (cfg.training.epochs, cfg.training.batch_size) == (5, 256)
    assert cfg.loss.scale == 10
    assert cfg.data.train == "a.csv"


def test_the_default_optimizer_keeps_its_type_unless_another_is_named():
    assert load_cfg({"optimizer": {"lr": 0.1}}).optimizer == {"type": "AdamW", "lr": 0.1}
    assert load_cfg({"optimizer": {"type": "SGD", "lr": 0.1}}).optimizer == {"type": "SGD", "lr": 0.1}
    assert load_cfg({"head": {"type": "EmptyHead"}}).head == {"type": "EmptyHead"}


def test_a_loaded_config_can_be_loaded_again(tmp_path):
    cfg = load_cfg({"loss": {"type": "TripletLoss"}, "encoders": {"type": "PrecomputedEncoder", "embedding_size": 2}})
    OmegaConf.save(cfg, tmp_path / "again.yaml")
    assert load_cfg(tmp_path / "again.yaml") == cfg


def test_encoders_may_be_named_or_single():
    single = load_cfg({"encoders": {"type": "PrecomputedEncoder", "embedding_size": 4}})
    assert list(named_encoders(single.encoders)) == ["default"]
    named = load_cfg({"encoders": {"text": {"type": "PrecomputedEncoder", "embedding_size": 4}}})
    assert list(named_encoders(named.encoders)) == ["text"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainin.epochs=3"], "unknown key 'trainin'; did you mean 'training'"),
        (["training.epoch=3"], "unknown key 'training.epoch'; did you mean 'epochs'"),
        (["training.epochs=many"], "value for 'training.epochs' does not fit.*got 'many'"),
        (["optimizer=[Adam]"], r"value for 'optimizer' does not fit: it should be a mapping .*got \['Adam'\]"),
        (["training.=3"], r"an override is written key=value \(training.epochs=3\), got 'training.=3'"),
        (["training..epochs=3"], "an override is written key=value"),
        (["training.epochs=0"], "training.epochs should be at least 1, got 0"),
        (["training.epochs"], "an override is written key=value"),
        (["loss.type=MultipleNegativesRankingLos"], "did you mean 'MultipleNegativesRankingLoss'"),
        (["loss.scal=3"], "'MultipleNegativesRankingLoss' has no setting 'scal'; did you mean 'scale'"),
        (["encoders.embeding_size=3"], "has no setting 'embeding_size'"),
        (["head.type=SkipConnectHead"], "unknown head type 'SkipConnectHead'; did you mean 'SkipConnectionHead'"),
        (["optimizer.type=Adm"], "unknown optimizer type 'Adm'"),
        (["scheduler.type=cosin"], "unknown scheduler type 'cosin'; did you mean 'cosine'"),
        (["metrics.p.type=RetrievalPrecison"], "unknown metric type 'RetrievalPrecison'"),
        (["data.kind=triples"], "unknown data.kind 'triples'; did you mean 'triplets'"),
    ],
)
def test_wrong_words_are_answered_with_the_nearest_right_one(tmp_path, overrides, message):
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    with pytest.raises(ConfigError, match=message):
        load_cfg(path, overrides)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no config file"):
        load_cfg(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1, 2\nb: }")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_cfg(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError, match="keys and values at its top level"):
        load_cfg(tmp_path / "list.yaml")


def test_required_keys_are_named():
    with pytest.raises(ConfigError, match="no value for 'encoders'"):
        require(load_cfg(), ["encoders"])
    with pytest.raises(ConfigError, match=r"no value for 'data.train'; add it to the file or as data.train="):
        require(load_cfg(), ["data.train"])
