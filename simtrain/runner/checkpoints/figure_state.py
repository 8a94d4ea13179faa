"""Figures that a run has logged up to some batch: sums of an epoch that has begun, and what callbacks see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from torch import Tensor
from torchmetrics import Metric

#: Words of ``module.log`` that are kept with a figure as they are.
OPTIONS = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx")
SUMS = ("value", "cumulated_batch_size")
#: What a trainer keeps of figures for others to look at.
SEEN = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")


def figure_state(trainer: lightning.Trainer) -> dict[str, Any]:
    """What has been logged in the present training epoch, and the figures that callbacks and loggers see now.

    Args:
        trainer: A trainer in ``fit``, between two batches or two epochs.

    Returns:
        Tensors and plain values only.
    """
    connector: Any = trainer._logger_connector
    results = trainer.fit_loop.epoch_loop._results
    names = {id(metric): name for name, metric in _metrics(trainer)}
    # Asked for first: figures may wait to be logged.
    _ = connector.metrics
    return {
        "results": [_logged(one, names) for one in results.values() if not one.has_reset],
        "metrics": {name: _sums(metric) for name, metric in _metrics(trainer) if metric.update_called},
        "seen": {name: {key: _cpu(value) for key, value in getattr(connector, name).items()} for name in SEEN},
    }


def restore_figures(trainer: lightning.Trainer, state: Mapping[str, Any]) -> None:
    """Go on with the figures of another run, on the device of this one.

    Args:
        trainer: A trainer in ``fit``, before its first batch.
        state: What :func:`figure_state` gave.
    """
    metrics = dict(_metrics(trainer))
    for name, sums in state["metrics"].items():
        if name in metrics:
            _load_sums(metrics[name], sums)
    results = trainer.fit_loop.epoch_loop._results
    for one in state["results"]:
        if one["metric"] is None or one["metric"] in metrics:
            results[_key(one)] = _restored(trainer, one, metrics)
    for name in SEEN:
        getattr(trainer._logger_connector, name).update(_on_device(trainer, state["seen"][name]))


def _metrics(trainer: lightning.Trainer) -> Iterator[tuple[str, Metric]]:
    for name, module in trainer.lightning_module.named_modules():
        if isinstance(module, Metric):
            yield name, module


def _logged(one: _ResultMetric, names: Mapping[int, str]) -> dict[str, Any]:
    meta = one.meta
    state = {name: getattr(meta, name) for name in (*OPTIONS, "dataloader_idx", "metric_attribute")}
    state.update(reduce_fx=meta.reduce_fx.__name__, sync=meta.sync.should, rank_zero_only=meta.sync.rank_zero_only)
    state.update(metric=None if one.is_tensor else names.get(id(one.value), ""), latest=_cpu(one._forward_cache))
    sums = {name: _cpu(getattr(one, name)) for name in SUMS if one.is_tensor and hasattr(one, name)}
    return {**state, "sums": sums, "updates": one._update_count}


def _restored(trainer: lightning.Trainer, state: Mapping[str, Any], metrics: Mapping[str, Metric]) -> _ResultMetric:
    words = {name: state[name] for name in (*OPTIONS, "dataloader_idx", "metric_attribute")}
    meta = _Metadata(**words, reduce_fx=getattr(torch, state["reduce_fx"]))
    meta.sync = _Sync(_should=state["sync"], fn=trainer.strategy.reduce, rank_zero_only=state["rank_zero_only"])
    one = _ResultMetric(meta, is_tensor=state["metric"] is None)
    for name, value in _on_device(trainer, state["sums"]).items():
        setattr(one, name, value)
    if state["metric"] is not None:
        one.value = metrics[state["metric"]]
    one._forward_cache = _on_device(trainer, {"": state["latest"]})[""]
    one._update_count, one._computed = state["updates"], None
    return one.to(trainer.strategy.root_device)


def _key(state: Mapping[str, Any]) -> str:
    loader = state["dataloader_idx"] if state["add_dataloader_idx"] else None
    # Of the hook's name, Lightning has the number of the loader at its end already.
    hook = state["fx"] if loader is None else state["fx"].removesuffix(f".{loader}")
    return f"{hook}.{state['name']}" + ("" if loader is None else f".{loader}")


def _sums(metric: Metric) -> dict[str, Any]:
    sums = {name: _cpu(getattr(metric, name)) for name in metric._defaults}
    return {"sums": sums, "updates": metric._update_count}


def _load_sums(metric: Metric, state: Mapping[str, Any]) -> None:
    for name, value in state["sums"].items():
        setattr(metric, name, [one.to(metric.device) for one in value] if isinstance(value, list) else value)
    metric._update_count, metric._computed = state["updates"], None
    metric.to(metric.device)


def _cpu(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_cpu(one) for one in value]
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def _on_device(trainer: lightning.Trainer, values: Mapping[str, Any]) -> dict[str, Any]:
    device = trainer.strategy.root_device
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in values.items()}
