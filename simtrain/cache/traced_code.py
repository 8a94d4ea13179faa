"""Code that torch has traced or scripted: it is in the module itself, not in its class."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

import torch
from torch import fx, nn

from simtrain.models.eval_mode import eval_mode

_OF_THE_FILE = ("version", "byteorder", ".data/", ".debug_pkl")
_CODE_FILE = re.compile(r"/code/(__torch__.*|.*__torch__)\.py$")
_PICKLED_PLACE = re.compile(rb"(?<=c)__torch__[\w.]*(?=\n)")
_NAMED_PLACE = re.compile(rb"__torch__[\w.]*(?=\.\w)")
_NUMBERED = re.compile(rb"\.___torch_mangle_\d+")


def traced_code(part: nn.Module) -> Any:
    """Code and constants of a traced or scripted module, as values that have a digest; None for any other module.

    Args:
        part: Any module.

    Example:
        >>> traced_code(nn.ReLU()) is None
        True
        >>> traced_code(fx.symbolic_trace(nn.ReLU())) == traced_code(fx.symbolic_trace(nn.Tanh()))
        False
    """
    if isinstance(part, fx.GraphModule):
        return part.code, [step.target for step in part.graph.nodes if callable(step.target)]
    return scripted_code(part) if isinstance(part, torch.jit.ScriptModule) else None


def scripted_code(part: torch.jit.ScriptModule) -> list[tuple[bytes, bytes]]:
    """What a scripted module would be saved as: names of files and their contents, without what is of the saving."""
    content = io.BytesIO()
    with eval_mode(part):  # the mode is one of its attributes
        torch.jit.save(part, content)
    places = Places()
    with zipfile.ZipFile(content) as archive:
        names = [name for name in archive.namelist() if not any(word in name for word in _OF_THE_FILE)]
        names.sort(key=lambda name: bool(_CODE_FILE.search(name)))  # the objects say which classes come first
        files = [(places.file_name(name), places.numbered(name, archive.read(name))) for name in names]
    return sorted(files)


class Places:
    """Places of scripted classes, numbered as they are met.

    Torch numbers classes of one name as a process meets them, so that a module that is loaded twice has two names.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}
        self._counts: dict[bytes, int] = {}

    def numbered(self, name: str, content: bytes) -> bytes:
        """Content of a file with the places of classes numbered anew."""
        if name.endswith(".pkl"):
            return _PICKLED_PLACE.sub(lambda found: self.number(found[0]), content)
        return _NAMED_PLACE.sub(lambda found: self.number(found[0]), content) if name.endswith(".py") else content

    def file_name(self, name: str) -> bytes:
        """Name of a file, numbered as its classes are."""
        found = _CODE_FILE.search(name)
        return self.number(found[1].replace("/", ".").encode()) if found else name.encode()

    def number(self, place: bytes) -> bytes:
        """A place by its name and number.

        Example:
            >>> places = Places()
            >>> places.number(b"__torch__.___torch_mangle_7"), places.number(b"__torch__.___torch_mangle_3")
            (b'__torch__ 0', b'__torch__ 1')
            >>> places.number(b"__torch__.___torch_mangle_7")
            b'__torch__ 0'
        """
        if place not in self._known:
            name = _NUMBERED.sub(b"", place)
            number = self._counts[name] = self._counts.get(name, -1) + 1
            self._known[place] = b"%b %d" % (name, number)
        return self._known[place]
