"""Which checkpoint a run goes on from."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException

from simtrain.errors import CheckpointError
from simtrain.runner.checkpoints.checkpoint_file import damage

logger = logging.getLogger("simtrain")

AUTO = "auto"
#: Folder of a run's checkpoints, in the run's folder.
CHECKPOINTS = "checkpoints"
#: What the name of a file begins with that was saved on an exception: in the middle of a step, not at an exact place.
ON_EXCEPTION = "exception-"

#: How torch begins to say that a state is of another module, or another optimizer.
_MISFITS = ("Error(s) in loading state_dict for ", "loaded state dict ")


def resume_path(resume_from: str, run_folder: Path) -> Path | None:
    """The checkpoint that ``training.resume_from`` means.

    Args:
        resume_from: The path of a checkpoint, or of a folder of them, or ``auto``: the newest whole one of the run.
        run_folder: Folder of the run, or of several runs.

    Returns:
        The file; None where a run has begun there, but has saved nothing yet: it begins anew.

    Raises:
        CheckpointError: There is none, or none is whole.
    """
    if resume_from != AUTO and not Path(resume_from).is_dir():
        return _whole(Path(resume_from))
    folder = run_folder if resume_from == AUTO else Path(resume_from)
    files = checkpoint_files(folder)
    for file in files:
        problem = damage(file)
        if problem is None:
            logger.info("resuming from %s", file)
            return file
        logger.warning("%s; trying the checkpoint before it", problem)
    if files:
        raise CheckpointError(f"none of the {len(files)} checkpoints in {folder} is whole; start without resume_from")
    check_begun(folder)
    logger.warning("the run in %s was left before its first checkpoint: it begins anew", folder)
    return None


@contextmanager
def fits_checkpoint(path: Path | None) -> Iterator[None]:
    """Say that a checkpoint is of another model, or trains other parameters, where torch cannot load it.

    Args:
        path: The checkpoint that a run goes on from; None for none.

    Raises:
        CheckpointError: It is not of this model, or of more epochs than the run has.
    """
    try:
        yield
    except MisconfigurationException as error:
        ended = re.search(r"current_epoch=(\d+).*max_epochs=(\d+)", str(error))
        if path is None or ended is None:
            raise
        raise CheckpointError(
            f"cannot resume: {path} is of a run that has done {ended[1]} epochs, and training.epochs is {ended[2]}; "
            f"set it to at least {ended[1]}, or leave out training.resume_from to begin anew"
        ) from error
    except (RuntimeError, ValueError) as error:
        if path is None or not str(error).startswith(_MISFITS):
            raise
        what = " ".join(str(error).split())
        raise CheckpointError(
            f"cannot resume: {path} is of a run of another model, or one that trained other parameters ({what}); to "
            f"begin with the weights that fit, set training.load_from in place of training.resume_from"
        ) from error


def check_begun(folder: Path) -> None:
    """Raise a :class:`CheckpointError` where no run has ever begun in a folder."""
    if checkpoint_files(folder):
        return
    if not any(True for pattern in (CHECKPOINTS, f"*/{CHECKPOINTS}") for _ in folder.glob(pattern)):
        raise CheckpointError(
            f"there is no run to resume in {str(folder)!r}: it has no folder {CHECKPOINTS!r}; check run_dir, or start "
            f"without training.resume_from"
        )


def checkpoint_files(folder: Path) -> list[Path]:
    """Checkpoints of the runs in a folder, newest first; those saved on an exception are not among them."""
    patterns = ("*.ckpt", f"{CHECKPOINTS}/*.ckpt", f"*/{CHECKPOINTS}/*.ckpt")
    files = [file for pattern in patterns for file in folder.glob(pattern) if not file.name.startswith(ON_EXCEPTION)]
    stats = {file: file.stat() for file in files}
    # Two names of one file are one checkpoint, the one that says more.
    files.sort(key=lambda file: len(file.name))
    distinct = {(stats[file].st_dev, stats[file].st_ino): file for file in files}
    return sorted(distinct.values(), key=lambda file: (stats[file].st_mtime_ns, _counted(file.name)), reverse=True)


def _counted(name: str) -> list[tuple[int, str]]:
    """What puts step 10 after step 9: a file system may give the same time to files of some milliseconds."""
    return [(int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _whole(file: Path) -> Path:
    if not file.exists():
        raise CheckpointError(f"there is no checkpoint {str(file)!r} to resume from (training.resume_from)")
    problem = damage(file)
    if problem is not None:
        raise CheckpointError(f"cannot resume: {problem}")
    return file
