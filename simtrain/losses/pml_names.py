"""What pytorch-metric-learning has, by kind, read from its files: asking for names imports nothing."""

from __future__ import annotations

import ast
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from simtrain.errors import MissingExtraError

PREFIX = "pml."
#: The package's kinds of parts, each a sub-package.
KINDS = ("losses", "miners", "distances", "reducers", "regularizers")
# Bases that cannot be used as they are; and what simtrain does itself, with its state in checkpoints: see XbmConfig.
_LEFT_OUT = {"CrossBatchMemory", "GenericPairLoss"}


@lru_cache(maxsize=1)
def pml_names() -> dict[str, str]:
    """Registry name → kind, of all losses, miners, distances, reducers and regularizers.

    Example:
        >>> names = pml_names()
        >>> names["pml.CircleLoss"], names["pml.MultiSimilarityMiner"], "pml.BaseMiner" in names
        ('losses', 'miners', False)
    """
    spec = find_spec("pytorch_metric_learning")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "names that begin with 'pml.' need the package 'pytorch_metric_learning', which is not installed; "
            "run: pip install pytorch-metric-learning"
        )
    root = Path(spec.submodule_search_locations[0])
    return {PREFIX + name: kind for kind in KINDS for name in _exported(root / kind / "__init__.py")}


def pml_loss_names() -> list[str]:
    """Registry names of the losses, sorted."""
    return sorted(name for name, kind in pml_names().items() if kind == "losses")


def _exported(file: Path) -> list[str]:
    imports = [node for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.ImportFrom)]
    names = [alias.asname or alias.name for node in imports for alias in node.names]
    return [name for name in names if not name.startswith("Base") and "Mixin" not in name and name not in _LEFT_OUT]
