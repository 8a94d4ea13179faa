"""Fingerprints: what an encoder and its collate function are, equal in every process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from simtrain.cache.identity import Identity
from simtrain.cache.module_parts import ignored_names


def encoder_fingerprint(encoder: nn.Module) -> str:
    """Identity of an encoder: class, code, settings, structure, all weights and buffers, and collate function.

    Code of the user's is followed through every function, class and variable that it names, in whatever file;
    installed packages count by name and version. What code looks up by a computed name (``getattr(x, name)``), and
    files and environment variables that it reads when it runs, cannot be seen: name those in ``get_config_dict``.

    Costs one pass over the weights, some gigabytes a second.

    Args:
        encoder: An :class:`~simtrain.encoders.Encoder`, or any module with ``get_collate_fn``. An attribute
            ``cache_ignores``, a set of names, leaves out attributes and variables that say nothing of the embeddings,
            such as a counter or a console.

    Returns:
        32 hexadecimal digits, equal in every process for an equal encoder.

    Raises:
        CacheError: A weight has no content (it is on the meta device), or the encoder or its collate function refers
            to something that has no identity, such as an open file.

    Example:
        >>> from simtrain.encoders import Encoder
        >>> encoder_fingerprint(Encoder()) == encoder_fingerprint(Encoder())
        True
    """
    identity = Identity(encoder, ignored=ignored_names(encoder))
    collate_fn = encoder.get_collate_fn()  # type: ignore[operator]
    return identity.whole("encoder", identity.of_module(encoder), identity.of(collate_fn))


def callable_fingerprint(function: Callable[..., Any]) -> str:
    """Identity of a function, partial, bound method or callable object.

    A function is its bytecode, constants, defaults and closure, with the variables, functions and classes that it
    names; a callable object is its class and state.

    Args:
        function: What to identify; an attribute ``cache_ignores`` names variables that do not count.

    Returns:
        32 hexadecimal digits, equal in every process.

    Raises:
        CacheError: It refers to something that has no identity, such as an open file or a lock.

    Example:
        >>> callable_fingerprint(lambda x: x + 1) == callable_fingerprint(lambda x: x + 2)
        False
    """
    identity = Identity(ignored=ignored_names(function))
    return identity.whole("callable", identity.of(function))
