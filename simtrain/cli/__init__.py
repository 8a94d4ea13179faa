"""The ``simtrain`` command."""

from simtrain.cli.command import app, main

__all__ = ["app", "main"]
