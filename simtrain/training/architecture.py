"""Drawing what a model does with its inputs.

torchview rather than torchviz: it records modules, functions and shapes during the forward pass, whatever nesting the
results come in, and with frozen weights too. torchviz walks the autograd graph back from one tensor: it shows backward
functions instead of layers, needs the result flattened, and shows nothing where no gradient is asked for.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from simtrain.data.transfer import move_to
from simtrain.errors import ConfigError, import_extra
from simtrain.training.graph_image import check_renderer, image_path, render_graph
from simtrain.training.parameters import module_device
from simtrain.training.untouched_state import untouched

# Courier's letters are of one width in every font that may stand in for it: text fits its box wherever it is drawn.
_FONT = "Courier"


def draw_architecture(
    model: nn.Module, inputs: Mapping[str, Any], save_path: str | Path = "model_graph.png", depth: int = 3
) -> str:
    """Draw the layers that ``model(**inputs)`` runs through, with the shapes that go in and out.

    Needs ``pip install 'simtrain[viz]'``, and no Graphviz (but uses its program ``dot`` where that is on the PATH).
    The model runs once, in eval mode and without gradients, and is afterwards as it was: modes, weights, buffers,
    gradients and random state. Not for use while other threads run models.

    Args:
        model: A model whose parameters are all on one device.
        inputs: Keyword arguments of its ``forward``; tensors are copied to the model's device.
        save_path: File to write: ``.png`` (also for a name without suffix), ``.svg``, ``.gv`` or ``.dot`` (the graph in
            Graphviz' language), or, with ``dot`` only, ``.pdf``. Its folder is made; a file that is there is replaced.
        depth: Levels of modules inside modules that are opened.

    Returns:
        Path of the file.

    Raises:
        ConfigError: The path, the inputs or the model do not allow a drawing; the message says why.
        MissingExtraError: A package is not installed.

    Example:
        >>> import os, tempfile
        >>> path = draw_architecture(nn.Linear(3, 2), {"input": torch.ones(4, 3)}, tempfile.mkdtemp() + "/model.gv")
        >>> os.path.isfile(path)
        True
    """
    if depth < 1:
        raise ConfigError(f"depth should be at least 1, got {depth}")
    path = image_path(save_path)
    check_renderer(path.suffix.lower())
    source = _trace(model, inputs, depth)
    content = render_graph(source, path.suffix.lower())
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"cannot write save_path {str(path)!r}: {error}") from error
    return str(path)


def _trace(model: nn.Module, inputs: Mapping[str, Any], depth: int) -> str:
    """The graph of one forward pass in Graphviz' language."""
    torchview = import_extra("torchview", "viz")
    device = _only_device(model)
    # torchview takes a mapping as keyword arguments and marks the tensors in it: the caller's stay unmarked.
    copies = _clone(move_to(dict(inputs), device))
    # torch.compile's wrapper runs code that cannot be recorded; the module in it can.
    inner = getattr(model, "_orig_mod", model)
    hook = inner.register_forward_hook(lambda _module, _args, result: _open_dataclass(result))
    try:
        with untouched(inner):
            graph = torchview.draw_graph(inner, copies, device=device, depth=depth, expand_nested=True)
    except Exception as error:  # any code of the model's may fail
        # torchview's own sentence says nothing; what the model raised does.
        cause = error.__cause__ or error
        raise ConfigError(
            f"cannot draw {type(inner).__name__}: its forward, called with {sorted(inputs)}, "
            f"raised {type(cause).__name__}: {cause}"
        ) from cause
    finally:
        hook.remove()
    if not graph.edge_list:
        raise ConfigError(
            f"cannot draw {type(inner).__name__}: no tensor goes from the inputs {sorted(inputs)} into a layer; "
            f"give forward its tensors themselves"
        )
    return _plain_source(graph.visual_graph)


def _only_device(model: nn.Module) -> torch.device:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ConfigError(f"the size of {name!r} is not known yet; run one batch through the model first")
    devices = {tensor.device for tensor in model.parameters()}
    if len(devices) > 1:
        named = ", ".join(sorted(map(str, devices)))
        raise ConfigError(f"the model's parameters are on several devices ({named}); draw it before it is spread")
    return module_device(model, default="cpu")


def _clone(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.detach().clone()
    if isinstance(data, dict):
        return {key: _clone(value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(_clone(value) for value in data))
    return type(data)(_clone(value) for value in data) if type(data) in (list, tuple) else data


def _open_dataclass(result: Any) -> Any:
    """A dataclass as a dict, the nesting in which torchview looks for results; None keeps the result as it is."""
    if dataclasses.is_dataclass(result) and not isinstance(result, (type, Mapping)):
        return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return None


def _plain_source(graph: Any) -> str:
    """The graph without HTML-like labels, which not every build of Graphviz can draw, and in its natural size."""
    graph.graph_attr.pop("size", None)
    graph.graph_attr.update(fontname=_FONT)
    graph.node_attr.update(fontname=_FONT, shape="box", margin="0.12,0.06", fontsize="11")
    graph.edge_attr.update(fontname=_FONT)
    table = re.compile(r"label=<\s*<TABLE.*?</TABLE>\s*>", re.DOTALL)
    source: str = graph.source
    return table.sub(lambda found: f'label="{_label(found[0])}"', source)


def _label(table: str) -> str:
    """Lines of text for the table that torchview makes: name, then shapes in and out."""
    cells = [html.unescape(cell).strip() for cell in re.findall(r"<TD[^>]*>(.*?)</TD>", table, re.DOTALL)]
    name, shapes = cells[0].split("<BR/>")[0], cells[1:]
    if len(shapes) == 4:
        shapes = [f"in  {shapes[1]}", f"out {shapes[3]}"]
    return "\\n".join([name.replace("-tensor", ""), *shapes]).replace('"', '\\"')
