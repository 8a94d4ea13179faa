"""Checkpoint files: written all at once, read without running anything that they hold."""

from __future__ import annotations

import os
import secrets
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from simtrain.errors import CheckpointError
from simtrain.models.durable_files import sync_file, sync_folder
from simtrain.training.checkpoint_weights import read_torch_file

MARK = ".tmp-"


class DurableCheckpointIO(TorchCheckpointIO):
    """How a trainer writes and reads checkpoints.

    A file is written beside its place, flushed to the disk and then renamed: at any moment there is the old file or the
    new one. Files are read with ``weights_only=True``, whoever wrote them.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Tensors and plain containers.
            path: The file; one with a protocol (``s3://…``) is left to Lightning.
            storage_options: Lightning's, for such a file.

        Raises:
            OSError: It cannot be written, the disk being full, say; what was there before is left as it was.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}{MARK}{secrets.token_hex(6)}")
        try:
            torch.save(checkpoint, draft)
            sync_file(draft)
        except BaseException as error:
            draft.unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and "inline_container" in str(error):  # torch's word for a failed write
                free = shutil.disk_usage(file.parent).free
                raise OSError(
                    f"cannot write the checkpoint {file}: the disk takes no more ({free:,} bytes are free)"
                ) from error
            raise
        os.replace(draft, file)
        sync_folder(file.parent)

    def load_checkpoint(
        self, path: Any, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint on the CPU.

        Raises:
            CheckpointError: It is missing, damaged, or holds anything but tensors and plain containers.
        """
        if "://" in str(path):
            return super().load_checkpoint(path, weights_only=True)
        return read_run(path)


def read_run(path: str | Path) -> dict[str, Any]:
    """Read the checkpoint of a run.

    Raises:
        CheckpointError: It is missing or damaged, holds code, or is no checkpoint of a run.
    """
    content = read_torch_file(path)
    if not isinstance(content, dict) or not {"state_dict", "loops"} <= content.keys():
        raise CheckpointError(
            f"{path} holds no run that could be resumed, but other values or weights alone; to begin with its weights, "
            f"set training.load_from"
        )
    return content


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file; None where it is whole, down to the checksum of each tensor."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            return f"{path} is damaged: {broken} has another checksum"
        read_run(path)
    except zipfile.BadZipFile:
        return f"{path} is damaged: it is cut off, or no checkpoint at all"
    except (CheckpointError, OSError) as error:
        return str(error)
    return None


def remove_drafts(folder: Path) -> None:
    """Remove what a killed process has left half written."""
    for draft in folder.glob(f"*.ckpt{MARK}*"):
        draft.unlink(missing_ok=True)
