"""Lightning's own trainer, quiet."""

import lightning


def trainer(**options):
    defaults = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(accelerator="cpu", enable_model_summary=False, **{**defaults, **options})
