"""``simtrain train``: a job from a config file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simtrain.cli.options import AsJson, Overrides
from simtrain.cli.output import answering

_SHOWN = ("hit_rate@1", "hit_rate@10", "mrr")


def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the training job.", show_default=False)],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train a model from a config file; with a test file, measure it before and after."""
    with answering(as_json) as answer:
        from simtrain.evaluation.table import comparison_table
        from simtrain.runner import fit

        result = fit(config, overrides or [])
        lines = [f"{stage}: {seconds:.1f} s" for stage, seconds in result.seconds.items()]
        if result.before is not None and result.after is not None:
            lines.insert(0, comparison_table(result.before, result.after, _SHOWN))
        answer(result.as_dict(), "\n".join([*lines, f"saved to {result.model_path}"]))
