"""The optional packages: which extra brings them, and what they are for."""

from __future__ import annotations

from dataclasses import dataclass

from simtrain.config.environment import version_of


@dataclass(frozen=True)
class Extra:
    """A group of optional packages.

    Attributes:
        name: As in ``pip install 'simtrain[name]'``.
        purpose: What they are for.
        packages: Their names in the registry.
    """

    name: str
    purpose: str
    packages: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """Those that are not installed."""
        return [package for package in self.packages if version_of(package) is None]

    @property
    def pip(self) -> str:
        """The line that installs them."""
        return f"pip install 'simtrain[{self.name}]'"


EXTRAS = (
    Extra("text", "sentence-transformers and transformers encoders", ("sentence-transformers",)),
    Extra("vision", "images: folders, vision encoders", ("pillow",)),
    Extra("data", "Parquet files, pandas and Arrow tables", ("pyarrow", "pandas")),
    Extra("index", "search indexes: simtrain index and search", ("qdrant-client",)),
    Extra("lora", "LoRA adapters in encoders", ("peft",)),
    Extra("sweep", "simtrain sweep", ("optuna",)),
    Extra("loggers", "TensorBoard and Weights & Biases", ("tensorboard", "wandb")),
    Extra("report", "plots of metrics and parameters", ("matplotlib",)),
    Extra("viz", "drawings of a model's architecture", ("torchview", "graphviz", "wasmtime", "resvg-py")),
    Extra("bench", "MTEB, and other libraries' figures beside ours", ("mteb", "ir-measures", "pytrec-eval-terrier")),
)
