"""What a shell completes in an override: the config's keys, and the words that a value may be."""

from __future__ import annotations

from collections.abc import Iterator


def complete_override(incomplete: str) -> Iterator[tuple[str, str]]:
    """Keys that begin as given, or the values of one; each with a line on it.

    Args:
        incomplete: What is typed so far.

    Example:
        >>> [word for word, _ in complete_override("training.ep")]
        ['training.epochs=']
        >>> [word for word, _ in complete_override("training.loop=c")]
        ['training.loop=cached']
    """
    from simtrain.config.keys import schema_keys
    from simtrain.config.limits import OneOf

    for key in schema_keys():
        words = key.limit.words if isinstance(key.limit, OneOf) else ()
        choices = [f"{key.name}={word}" for word in words] if "=" in incomplete else [f"{key.name}="]
        yield from ((choice, key.doc) for choice in choices if choice.startswith(incomplete))
