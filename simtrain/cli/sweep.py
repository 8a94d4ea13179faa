"""``simtrain sweep``: a job with other settings, many times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simtrain.cli.options import AsJson, Overrides
from simtrain.cli.output import answering

EXIT_NONE_WENT_WELL = 1


def sweep(
    file: Annotated[Path, typer.Argument(help="YAML file of the sweep.", show_default=False)],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Try settings of a job, and write the best config. The same call again goes on where it stopped."""
    with answering(as_json) as answer:
        from simtrain.runner.sweep import sweep as run_sweep

        result = run_sweep(file, overrides or [])
        end = f"no trial of {len(result.trials)} went well"
        if result.best is not None:
            end = f"best: {result.best.run_dir}/model; to train it again: simtrain train {result.best_config}"
        answer(result.as_dict(), f"{result.table()}\n{end}")
    if result.best is None:
        raise typer.Exit(EXIT_NONE_WENT_WELL)
