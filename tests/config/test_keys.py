from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest

from simtrain import load_cfg
from simtrain.config import Config
from simtrain.config.keys import attribute_docs, json_schema, schema_keys
from simtrain.errors import ConfigError
from simtrain.runner.sweep import SweepConfig

KEYS = {key.name: key for key in schema_keys()}


def sections(schema):
    yield schema
    for hint in get_type_hints(schema).values():
        if is_dataclass(hint):
            yield from sections(hint)


def test_every_field_is_documented_and_nothing_else_is():
    found = [section for schema in (Config, SweepConfig) for section in sections(schema)]
    assert len(found) >= 5
    for section in found:
        docs = attribute_docs(section)
        assert list(docs) == [one.name for one in fields(section)], section
        assert all(doc.endswith(".") and "``" not in doc and ":class:" not in doc for doc in docs.values()), section


def test_defaults_keep_to_their_own_limits():
    limited = [key for key in KEYS.values() if key.limit is not None]
    assert len(limited) > 15
    for key in limited:
        assert key.default is None or key.limit.problem(key.name, key.default) is None


def test_the_json_schema_has_each_key_where_it_belongs():
    schema = json_schema()
    assert schema["required"] == [name for name, key in KEYS.items() if key.required] == ["encoders", "loss"]
    for name in KEYS:
        node = schema
        for word in name.split("."):
            node = node["properties"][word]
        assert node["description"]
    training = schema["properties"]["training"]
    assert training["additionalProperties"] is False
    assert training["properties"]["grad_clip"] == {
        "description": "Largest gradient norm; null for none.",
        "type": ["number", "null"],
        "default": None,
        "exclusiveMinimum": 0,
    }
    assert training["properties"]["loop"]["enum"] == ["auto", "cached", "trainer"]


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"epochs": 3}, "the config has an unknown key 'epochs'; did you mean 'training.epochs'?"),
        (
            {"data": {"batch_size": 3}},
            "the config has an unknown key 'data.batch_size'; did you mean 'training.batch_size'?",
        ),
        ({"training": 3}, "the config's section 'training' should hold keys and values, got 3"),
        (
            {"training": {"epochs": "${n}"}},
            "the config's value for 'training.epochs' does not fit: Interpolation key 'n' not",
        ),
        ({"seed": [1]}, "the config's value for 'seed' does not fit: "),
        (
            {"callbacks": {"type": "Throughput"}},
            "the config's value for 'callbacks' does not fit: it should be a list ({type: …} of each callback",
        ),
        (
            {"optimizer": ["AdamW"]},
            "the config's value for 'optimizer' does not fit: it should be a mapping ({type: …} of the optimizer), "
            "got ['AdamW']",
        ),
        ({"scheduler": "cosine"}, "the config's value for 'scheduler' does not fit: it should be a mapping or null"),
        ({"wandb": {"tags": "a"}}, "the config's value for 'wandb.tags' does not fit: it should be a list (Tags of"),
        (
            {"training": {"max_time": 2160000}},
            "training.max_time is written 'DD:HH:MM:SS', in quotes and longer than no time, such as '00:12:00:00', got",
        ),
        ({"metrics": {"p": object()}}, "a config holds plain values only: "),
        ({"pt": {"topk": 3}}, "the config's key 'pt.topk' is 'checkpoint.topk' here; write checkpoint.topk: 3"),
    ],
)
def test_a_wrong_key_or_value_is_told_in_one_sentence(cfg, message):
    with pytest.raises(ConfigError) as error:
        load_cfg(cfg)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_empty_section_has_its_defaults(tmp_path):
    (tmp_path / "job.yaml").write_text("seed: 3\ntraining:\n  # epochs: 3\n")
    assert load_cfg(tmp_path / "job.yaml").training.epochs == 10
