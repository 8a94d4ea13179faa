from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from torch import nn

from simtrain import registry
from simtrain.data import SimilarityPairSample
from simtrain.encoders import Encoder, ModuleEncoder, NgramEncoder, PrecomputedEncoder, SwitchEncoder, VisionEncoder
from simtrain.errors import ConfigError, ServableError
from simtrain.heads import AsymmetricHead, EmptyHead, GatedHead, SequentialHead, SkipConnectionHead
from simtrain.models import SimilarityModel
from simtrain.models.card_file import MARK, may_be_replaced
from simtrain.models.model_card import checked_card, model_card


class Lengths(Encoder):
    trainable = False
    embedding_size = 1

    def get_collate_fn(self) -> Any:
        return lambda texts: torch.tensor([[float(len(text))] for text in texts]).reshape(len(texts), 1)

    def forward(self, batch: Any) -> torch.Tensor:
        return batch  # type: ignore[no-any-return]

    def save(self, output_path: str | Path) -> None:
        pass

    @classmethod
    def load(cls, input_path: str | Path) -> Lengths:
        return cls()


@registry.encoders.register_module("test_model_card_lengths")
class RegisteredLengths(Lengths):
    pass


@registry.heads.register_module("test_model_card_head")
class RegisteredHead(GatedHead):
    __module__ = "shop.heads"


def tables_in(text: str) -> list[list[list[str]]]:
    """Rows of each table, as a Markdown reader sees them."""
    tables: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and tables and token.level > 3:
            tables[-1][-1].append(token.content)
    return tables


def card_of(model: SimilarityModel, card: Any = None) -> str:
    return model_card("m", dict(model.encoders.items()), model.head, model.has_sides, card)


def precomputed(size: int = 3) -> SimilarityModel:
    return SimilarityModel(PrecomputedEncoder(size), GatedHead(size))


# -- what it says


def test_parts_with_their_classes_sizes_and_settings() -> None:
    head = SequentialHead(nn.Linear(10, 4), nn.GELU(), output_size=4, dropout=0.1)
    model = SimilarityModel({"own": PrecomputedEncoder(2), "grams": NgramEncoder(8, n_buckets=9)}, head)
    (table,) = tables_in(card_of(model))
    assert table == [
        ["part", "class", "dimensions", "trained", "settings"],
        [
            "encoder `grams`",
            "`NgramEncoder`",
            "8",
            "yes",
            "n_buckets `9`, ngrams `[3, 5]`, weighting `mean`, sparse `false`",
        ],
        ["encoder `own`", "`PrecomputedEncoder`", "2", "no, frozen", "–"],
        ["head", "`SequentialHead`", "10 → 4", "yes", "dropout `0.1`, layers `Linear → GELU`, output_size `4`"],
    ]
    text = card_of(model)
    assert "vectors of 4 dimensions out" in text
    assert "The encoders' vectors are joined in this order" in text
    assert "encoded differently" not in text


def test_what_the_user_says_is_in_tables() -> None:
    card = {
        "description": "Finds *shoes*.",
        "data": {"train": {"file": "a|b.csv", "pairs": 12345}, "note": "<b>\nx", "open": True},
        "metrics": {"mrr": 0.41239, "loss": 0.0000123, "ms": 1234.5},
        "config": {"loss": {"type": "TripletLoss", "margin": 0.2}, "sizes": [1, 2], "none": None, "prompt": "q: "},
    }
    text = card_of(precomputed(), card)
    assert "\n\nFinds *shoes*.\n\n" in text
    assert tables_in(text)[1:] == [
        [
            ["data", "value"],
            ["train.file", "a|b.csv"],
            ["train.pairs", "12,345"],
            ["note", "&lt;b> x"],
            ["open", "yes"],
        ],
        [["metric", "value"], ["mrr", "0.412"], ["loss", "1.23e-05"], ["ms", "1,234"]],
        [
            ["setting", "value"],
            ["loss.type", "`TripletLoss`"],
            ["loss.margin", "`0.2`"],
            ["sizes", "`[1, 2]`"],
            ["none", "`null`"],
            ["prompt", '`"q: "`'],
        ],
    ]


def test_results_stand_side_by_side_with_their_intervals() -> None:
    from simtrain.evaluation import evaluate

    samples = [SimilarityPairSample((float(i), 1.0), (float(i), 0.9)) for i in range(6)]
    result = evaluate(SimilarityModel(PrecomputedEncoder(2), EmptyHead(2)), samples, k=(1,))
    mean, (low, high) = result.metrics["mrr"], result.interval("mrr")
    row = f"{mean:.3f} [{low:.3f}, {high:.3f}]"
    for given, title in [
        ({"before": None, "frozen": result.as_dict(), "after": result}, ["metric", "frozen", "after"]),
        (result, ["metric", "value"]),
        (result.as_dict(["mrr"]), ["metric", "value"]),
    ]:
        text = card_of(precomputed(), {"metrics": given})
        table = tables_in(text)[1]
        assert table[:2] == [title, ["mrr", *[row] * (len(title) - 1)]]
        counts = {"queries": "6", "queries without a match": "0", "items searched": "6"}
        assert table[-3:] == [[name, *[count] * (len(title) - 1)] for name, count in counts.items()]
        assert "In brackets: the 95% interval of the figure before them." in text


def test_metrics_of_different_columns_are_put_together() -> None:
    metrics = {"a": {"mrr": 0.5}, "b": {"mrr": {"value": 0.25, "interval": [0.2, 0.3]}, "r@1": 12.3456}}
    text = card_of(precomputed(), {"metrics": metrics})
    rows = [["metric", "a", "b"], ["mrr", "0.500", "0.250 [0.200, 0.300]"], ["r@1", "–", "12.35"]]
    assert tables_in(text)[1] == rows


def test_sections_may_be_texts_and_empty_ones_are_left_out() -> None:
    text = card_of(precomputed(), {"data": "Pairs of **shoes**.", "metrics": {}, "config": None})
    assert "## Data\n\nPairs of **shoes**.\n" in text
    assert "## Metrics" not in text
    assert "## Config" not in text


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (3, r"^card must be a text or \{'data': \{\.\.\.\}, .*got 3"),
        ({"metric": {}}, r"^a model card has no section 'metric'; did you mean 'metrics'"),
        ({"data": 3}, r"^the card's section 'data' must be a text or settings by name, got 3"),
        ({"description": {}}, r"^the card's section 'description' must be a text, got \{\}"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_wrong_cards_are_named_before_anything_is_written(tmp_path: Path, card: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        precomputed().save(tmp_path / "m", card=card)
    assert list(tmp_path.iterdir()) == []


def test_wrong_metrics_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"^the card's metric 'x' of 'a' must be a number or \{'value': NUMBER, 'inte"
    ):
        card_of(precomputed(), {"metrics": {"a": {"x": {"mean": 1}}}})


def test_it_is_the_same_for_the_same_model(tmp_path: Path) -> None:
    texts = []
    for place in ("x", "y"):
        precomputed().save(tmp_path / place / "m", card={"data": {"pairs": 3}})
        texts.append((tmp_path / place / "m" / "README.md").read_bytes())
    assert texts[0] == texts[1]
    loaded = SimilarityModel.load(tmp_path / "x" / "m")
    loaded.save(tmp_path / "z" / "m", card={"data": {"pairs": 3}})
    assert (tmp_path / "z" / "m" / "README.md").read_bytes() == texts[0]


# -- the code in it


def run_code(text: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(code, "card", "exec"), names)
    return names


def vision() -> VisionEncoder:
    return VisionEncoder(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), image_size=8)


MODELS = {
    "vectors": (lambda: precomputed(), 1),
    "texts": (lambda: SimilarityModel(NgramEncoder(3, n_buckets=9), SkipConnectionHead(3)), 2),
    "switch": (lambda: SimilarityModel(SwitchEncoder({"text": NgramEncoder(3, n_buckets=9)}), EmptyHead(3)), 2),
    "sides": (lambda: SimilarityModel(NgramEncoder(3, n_buckets=9), AsymmetricHead(3)), 2),
    "mixed": (lambda: SimilarityModel({"a": PrecomputedEncoder(2), "b": NgramEncoder(2)}, EmptyHead(4)), 0),
    "own class": (lambda: SimilarityModel(Lengths(), GatedHead(1)), 0),
    "registered": (lambda: SimilarityModel(RegisteredLengths(), GatedHead(1)), 0),
}


@pytest.mark.parametrize("format", ["simtrain", "quaterion"])
@pytest.mark.parametrize("kind", MODELS)
def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, format: str) -> None:
    build, count = MODELS[kind]
    model = build()
    if format == "quaterion" and kind in ("sides", "own class"):
        with pytest.raises(ServableError, match="cannot be saved for quaterion-models"):
            model.save(tmp_path / "my model", format=format)
        return
    model.save(tmp_path / "my model", format=format)
    names = run_code((tmp_path / "my model" / "README.md").read_text(encoding="utf-8"), monkeypatch, tmp_path)
    assert names["similarities"].shape == (count, count)
    assert names["model"].embedding_size == model.embedding_size
    assert ("queries" in names) == (kind == "sides")


def test_its_code_says_which_encoders_to_build() -> None:
    text = card_of(SimilarityModel({"a": ModuleEncoder(nn.Linear(2, 2), 2), "b": PrecomputedEncoder(2)}, EmptyHead(4)))
    assert 'built = {"a": ...}  # made as for training; the saved weights are read into them\n' in text
    assert 'model = SimilarityModel.load("m", encoders=built)\n' in text
    compile(re.findall(r"```python\n(.*?)```", text, re.S)[0], "card", "exec")


def test_its_code_for_images_has_items_that_the_encoder_takes() -> None:
    encoder = vision()
    text = card_of(SimilarityModel(encoder, EmptyHead(4)))
    (items,) = re.findall(r"items = (.*?)  #", text)
    assert "import torch\n" in text
    assert SimilarityModel(encoder, EmptyHead(4)).encode(eval(items, {"torch": torch})).shape == (1, 4)


def test_its_code_imports_the_users_registered_classes_wherever_they_stand() -> None:
    class LocalHead(GatedHead):
        pass

    inside = SwitchEncoder({"text": SwitchEncoder({"text": RegisteredLengths()})})
    for encoder, head in (
        (inside, EmptyHead(1)),
        (RegisteredLengths(), RegisteredHead(1)),
        (NgramEncoder(1), SequentialHead(RegisteredHead(1), LocalHead(1), output_size=1)),
        (inside, AsymmetricHead(1, query=RegisteredHead(1))),
    ):
        text = card_of(SimilarityModel(encoder, head))
        assert ("import RegisteredLengths\n" in text) == (not isinstance(encoder, NgramEncoder))
        assert text.count("\nfrom shop.heads import RegisteredHead\n") == (not isinstance(head, EmptyHead))
        assert ("allow=[LocalHead]" in text) == isinstance(head, SequentialHead)
        assert "allow=[LocalHead]" in text or "allow=" not in text


def test_classes_defined_in_a_function_are_not_imported() -> None:
    class Local(Lengths):
        pass

    text = card_of(SimilarityModel(Local(), EmptyHead(1)))
    assert "\n# define Local here as it was for training\n" in text
    assert 'SimilarityModel.load("m", allow=[Local])' in text


# -- the file


def test_a_users_own_text_is_never_overwritten(tmp_path: Path) -> None:
    precomputed().save(tmp_path)
    file = tmp_path / "README.md"
    assert MARK in file.read_text(encoding="utf-8")
    precomputed(5).save(tmp_path, card="Newer.")
    assert "5 → 5" in file.read_text(encoding="utf-8")
    own = file.read_text(encoding="utf-8").replace(MARK, "").replace("Newer.", "Mine.")
    file.write_text(own, encoding="utf-8")
    precomputed(6).save(tmp_path)
    assert file.read_text(encoding="utf-8") == own
    assert SimilarityModel.load(tmp_path).embedding_size == 6


def test_what_is_no_plain_file_of_ours_is_left_alone(tmp_path: Path) -> None:
    assert may_be_replaced(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("binary", "link", "."):
        assert not may_be_replaced(tmp_path / name)
    (tmp_path / "README.md").mkdir()
    precomputed().save(tmp_path)
    assert (tmp_path / "README.md").is_dir()


def test_loading_does_not_look_at_it(tmp_path: Path) -> None:
    precomputed().save(tmp_path)
    (tmp_path / "README.md").unlink()
    assert SimilarityModel.load(tmp_path).embedding_size == 3


def test_checked_card() -> None:
    assert checked_card(None) == {}
    assert checked_card({"data": {"a": 1}}) == {"data": {"a": 1}}
