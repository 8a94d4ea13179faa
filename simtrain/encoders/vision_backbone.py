"""Vision backbones of any library, by what they look like: without their classifier, pooled to one vector an image."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from simtrain.errors import ConfigError

#: Where backbones keep their classifier.
CLASSIFIERS = ("fc", "_fc", "classifier", "head", "heads")


class ForwardFeatures(nn.Module):
    """Runs a backbone up to its features.

    Args:
        backbone: A module with ``forward_features``.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Give the features of ``images``."""
        features: Tensor = self.backbone.forward_features(images)  # type: ignore[operator]
        return features


def without_classifier(backbone: nn.Module, keep: bool = False) -> nn.Module:
    """A copy of ``backbone`` that gives features instead of classes.

    timm's models have ``reset_classifier`` or ``forward_features`` for that. In models like torchvision's the last
    linear layer of ``fc``, ``_fc``, ``classifier``, ``head`` or ``heads`` and what follows it there are left out. Any
    other module is copied as it is.

    Args:
        backbone: Any module; it is not changed.
        keep: Leave the classifier in the copy.

    Raises:
        ConfigError: ``backbone`` is no module.

    Example:
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.classifier = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1000))
        >>> without_classifier(Net()).classifier
        Sequential(
          (0): Linear(in_features=3, out_features=8, bias=True)
          (1): ReLU()
        )
    """
    if not isinstance(backbone, nn.Module):
        raise ConfigError(
            f"backbone must be a torch.nn.Module, got {backbone!r:.80}; in a config, name a registered subclass of "
            f"VisionEncoder that builds its own"
        )
    copied = copy.deepcopy(backbone)
    if keep:
        return copied
    if hasattr(copied, "reset_classifier") and hasattr(copied, "num_features"):
        copied.reset_classifier(0)  # type: ignore[operator]
        return copied
    if hasattr(copied, "forward_features"):
        return ForwardFeatures(copied)
    names = [name for name, _ in copied.named_children() if name in CLASSIFIERS]
    if names:
        setattr(copied, names[-1], _without_last_linear(copied.get_submodule(names[-1])))
    return copied


def pooled(features: Any) -> Float[Tensor, "batch dim"]:
    """Vectors as they are, feature maps averaged over their places.

    Args:
        features: Shape ``(batch, dim)`` or ``(batch, dim, height, width)``.

    Raises:
        ConfigError: They have another shape.

    Example:
        >>> pooled(torch.tensor([[[[1.0, 3.0]]]]))
        tensor([[2.]])
    """
    if isinstance(features, Tensor) and features.ndim == 4:
        return features.mean((2, 3))
    if not isinstance(features, Tensor) or features.ndim != 2:
        got = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else f"a {type(features).__name__}"
        raise ConfigError(
            f"a backbone must give a tensor of shape (batch, dim) or (batch, dim, height, width), got {got}; wrap it "
            f"in a module that does"
        )
    return features


def output_size(backbone: nn.Module, image_size: int) -> int:
    """Number of dimensions that ``backbone`` gives, found by running it once on two black images in eval mode.

    Raises:
        ConfigError: It cannot be run on them.
    """
    weight = next((p for p in backbone.parameters() if p.is_floating_point()), torch.empty(0))
    images = torch.zeros(2, 3, image_size, image_size, dtype=weight.dtype, device=weight.device)
    backbone.eval()
    try:
        with torch.no_grad():
            return pooled(backbone(images)).shape[1]
    except ConfigError:
        raise
    except Exception as error:  # a module may raise anything on images that it is not made for
        raise ConfigError(
            f"{type(backbone).__name__} cannot be run on images of shape {tuple(images.shape)} to find its "
            f"embedding_size ({type(error).__name__}: {error}); give embedding_size, or another image_size"
        ) from error


def _without_last_linear(classifier: nn.Module) -> nn.Module:
    if isinstance(classifier, nn.Linear):
        return nn.Identity()
    if isinstance(classifier, nn.Sequential):
        linear = [i for i, layer in enumerate(classifier) if isinstance(layer, nn.Linear)]
        if linear:
            return classifier[: linear[-1]]
    return classifier
