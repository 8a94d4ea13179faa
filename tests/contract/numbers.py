"""The behaviours of the model contract by number: three sources of the design, and how differences are settled."""

from __future__ import annotations

NUMBERS: dict[str, str] = {
    # A minimal model class with four abstract steps.
    "000-1": "a module and an abstract class; built without arguments; usable alone",
    "000-2": "a class that lacks a step cannot be built",
    "000-3": "train_step returns a dict with a live loss",
    "000-4": "every scalar of the dict whose name contains 'loss' is logged",
    "000-5": "valid_step and test_step return whatever evaluation needs",
    "000-6": "compute_loss is shared by the steps",
    "000-7": "load_checkpoint: bare, 'model', 'state_dict'; weights only; gives missing names",
    "000-8": "from_cfg: dict, OmegaConf, Namespace; by type or by class",
    "000-9": "constructor arguments are the config's keys; unknown ones are errors",
    "000-10": "pretrained and allow_missing_keys",
    "000-11": "device",
    "000-12": "registry: only modules, duplicates and unknown names are errors",
    "000-13": "freeze_parameters searches a pattern and can be chained",
    "000-14": "visualize_architecture returns the path of the picture",
    "000-15": "plot_parameter_histogram gives a figure",
    "000-16": "detect_parameter_outliers",
    "000-17": "device, dtype, num_parameters, num_trainable_parameters",
    "000-18": "steps with the batch alone run under the Runner",
    # One forward with a mode.
    "001-1": "data_preprocessor: none, config or module; init_cfg",
    "001-2": "a forward with a mode is enough",
    "001-3": "train_step with an optim_wrapper: preprocess, forward, parse, update",
    "001-4": "val_step and test_step preprocess and predict",
    "001-5": "batches are unpacked: dict by name, list and tuple by place, else an error",
    "001-6": "parse_losses: means, sums, the total first",
    "001-7": "moving the model moves its preprocessors",
    "001-8": "init_cfg initialises; models are registered",
    "001-9": "gradients are in sync between processes",
    # The flow of data through preprocessor, model and evaluator.
    "004-1": "the loop over preprocessor, forward and evaluator",
    "004-2": "an overridden train_step is custom update logic",
    "004-3": "forward takes what the loader gives, or what a preprocessor makes of it",
    "004-4": "three modes: loss, predict, tensor",
    "004-5": "forward, parse_losses, update_params, in this order",
    "004-6": "without a preprocessor the data is moved all the same",
    "004-7": "preprocessors: move before normalising, batch augmentation in training only, conversion",
    # Where the sources differ.
    "ruling-1": "the loop updates unless an optim_wrapper is given",
    "ruling-2": "losses are summed from forward(mode='loss') only",
    "ruling-3": "four methods or a forward with a mode make a class concrete",
    "ruling-4": "val_step and valid_step are one",
    "ruling-6": "missing keys are an error unless allowed; unknown ones name the nearest",
    "ruling-7": "patterns are searched; one that fits nothing is an error",
    "ruling-8": "without a device the model is not moved",
    "ruling-11": "a step may return None",
    "ruling-12": "the default optimizer is AdamW from the config, on the CPU, too",
}
