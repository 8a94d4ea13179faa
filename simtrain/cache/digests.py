"""Digests of Python values that are equal in every process: the ground that identities stand on.

Every digest is 16 bytes of xxh3-128 over a type tag and content, so that the text ``"1"`` and the number 1 differ.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
import xxhash
from jaxtyping import Shaped
from torch import Tensor, nn

Digest = bytes
Array = Shaped[np.ndarray, "..."]
OtherDigest = Callable[[Any], Digest]

# What a class of somebody's own may extend, and the classes that add nothing.
_EXTENDED = (Tensor, np.ndarray, tuple, Mapping, AbstractSet)
_PLAIN = {Tensor, nn.Parameter, np.ndarray, tuple, dict, OrderedDict, set, frozenset}


def leaf(tag: bytes, content: bytes) -> Digest:
    r"""Digest of a tag and one piece of content. The tag ends with a zero byte.

    Example:
        >>> leaf(b"str\0", b"1") == leaf(b"int\0", b"1")
        False
    """
    return xxhash.xxh3_128_digest(tag + content)


def node(tag: str, *parts: bytes | memoryview) -> Digest:
    """Digest of a tag and any number of parts; where one part ends and the next begins counts.

    Example:
        >>> node("list", b"ab", b"c") == node("list", b"a", b"bc")
        False
    """
    hasher = xxhash.xxh3_128(tag.encode() + b"\0")
    for part in parts:
        view = memoryview(part)
        hasher.update(view.nbytes.to_bytes(8, "little"))
        hasher.update(view)
    return hasher.digest()


def class_name(value: object) -> str:
    """Full name of a value's class.

    Example:
        >>> class_name(1)
        'builtins.int'
    """
    return full_name(type(value))


def full_name(kind: type) -> str:
    """Module and name of a class, the same in a worker that was spawned: there the script is ``__mp_main__``.

    Example:
        >>> full_name(int)
        'builtins.int'
    """
    return f"{script_name(kind.__module__)}.{kind.__qualname__}"


def script_name(module: str | None) -> str | None:
    """Name of a module, that of a script being ``__main__`` in all processes."""
    return "__main__" if module == "__mp_main__" else module


def value_digest(value: Any, other: OtherDigest, ordered: bool = False) -> Digest:
    """Digest of a plain value or a nesting of them.

    Args:
        value: None, bool, int, float, complex, str, bytes, numpy array or scalar, tensor, or a mapping, list,
            tuple or set of such values; of classes that extend one of these, their attributes count, too.
        other: Called with any value of another kind, a class included; gives its digest or raises.
        ordered: Whether the order of a mapping's keys counts.

    Returns:
        16 bytes, equal in every process.

    Example:
        >>> value_digest({"a": 1, "b": 2}, other=hash) == value_digest({"b": 2, "a": 1}, other=hash)
        True
    """
    scalar = scalar_digest(value)
    if scalar is not None:
        return scalar
    if isinstance(value, Tensor) and not value.is_nested:
        digest = tensor_digest(value)
    elif isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        digest = array_digest(value, other, ordered)
    else:
        digest = container_digest(value, other, ordered)
    is_plain = type(value) in _PLAIN or not isinstance(value, _EXTENDED)
    return digest if is_plain else marked_digest(value, digest, other, ordered)


def marked_digest(value: Any, digest: Digest, other: OtherDigest, ordered: bool) -> Digest:
    """Digest of a value of a subclass: its class and its own attributes count beside its content."""
    attributes = pair_digests(list(getattr(value, "__dict__", {}).items()), other, ordered)
    return node("of class", other(type(value)), digest, *attributes)


def scalar_digest(value: Any) -> Digest | None:
    """Digest of a value that contains no others, or None if it is of another kind."""
    kind = type(value)
    if isinstance(value, np.number):
        return leaf(f"{kind.__name__}\0".encode(), value.tobytes())
    if kind is str or kind is np.str_:
        return leaf(b"str\0", value.encode("utf-8", "surrogatepass"))
    if kind is memoryview and (value.format, value.ndim) != ("B", 1):  # the same bytes may be other numbers
        return leaf(f"memory {value.format} {value.shape}\0".encode(), bytes(value))
    if kind in (bytes, bytearray, memoryview, np.bytes_):
        return leaf(b"bytes\0", bytes(value))
    if value is None:
        return leaf(b"none\0", b"")
    if kind is bool or kind is np.bool_:
        return leaf(b"bool\0", b"1" if value else b"0")
    if kind is int:
        return leaf(b"int\0", str(value).encode())
    if kind is float:
        return leaf(b"float\0", struct.pack("<d", value))
    if kind is complex:
        return leaf(b"complex\0", struct.pack("<dd", value.real, value.imag))
    return None


def array_digest(array: Array, other: OtherDigest, ordered: bool = False) -> Digest:
    """Digest of an array: type, shape and content; arrays of objects item by item."""
    shape = str(array.shape).encode()
    if array.dtype.hasobject:
        fields = repr(array.dtype.descr).encode() if array.dtype.names else b""
        items = (value_digest(item, other, ordered) for item in array.ravel().tolist())
        return node("objects", shape, *([fields] if fields else ()), *items)
    content = np.ascontiguousarray(array).reshape(-1)
    raw = content.view(np.uint8) if array.dtype.itemsize else content
    kind = repr(array.dtype.descr) if array.dtype.names else array.dtype.str  # the latter says nothing of fields
    return node("array", kind.encode(), shape, raw.data if raw.size else b"")


def tensor_digest(tensor: Tensor) -> Digest:
    """Digest of a tensor: type, shape and content, wherever it lies."""
    plain = tensor.detach().dequantize() if tensor.is_quantized else tensor.detach()
    dense = plain.to_dense() if tensor.layout is not torch.strided else plain
    flat = dense.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    raw = flat.view(torch.uint8).numpy()
    return node("tensor", str(tensor.dtype).encode(), str(tuple(tensor.shape)).encode(), raw.data if raw.size else b"")


def container_digest(value: Any, other: OtherDigest, ordered: bool = False) -> Digest:
    """Digest of a mapping, list, tuple or set; the order of a set does not count, that of a mapping where asked."""
    kind = type(value)
    if kind is list:
        return node("list", *(value_digest(item, other, ordered) for item in value))
    if isinstance(value, tuple):
        return node("tuple", *(value_digest(item, other, ordered) for item in value))
    if isinstance(value, Mapping):
        pairs = pair_digests(list(value.items()), other, ordered)
        return node("ordered mapping", *pairs) if ordered else node("mapping", *sorted(pairs))
    if isinstance(value, AbstractSet):
        return node("set", *sorted(value_digest(item, other, ordered) for item in value))
    return other(value)


def pair_digests(pairs: list[tuple[Any, Any]], other: OtherDigest, ordered: bool = False) -> list[Digest]:
    """Digest of each (name, value) pair."""
    return [
        node("pair", value_digest(name, other, ordered), value_digest(value, other, ordered)) for name, value in pairs
    ]
