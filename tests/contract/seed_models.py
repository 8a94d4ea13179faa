"""The models that the sources of the contract print as examples, word for word but for the imports."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from simtrain import BaseModel
from simtrain.registry import models as MODELS


class ToyModel(BaseModel):
    def __init__(self, dim=10):
        super().__init__()
        import torch.nn as nn

        self.linear = nn.Linear(dim, 1)

    def compute_loss(self, x, y):
        import torch.nn.functional as F

        pred = self.linear(x)
        return {"loss": F.mse_loss(pred, y)}

    def train_step(self, batch):
        return self.compute_loss(**batch)

    def valid_step(self, batch):
        return self.compute_loss(**batch)

    def test_step(self, batch):
        return self.compute_loss(**batch)


@MODELS.register_module("ImageToyModel")
class ImageToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.add_module("conv1", nn.Conv2d(3, 6, 5))
        self.backbone.add_module("pool", nn.MaxPool2d(2, 2))
        self.backbone.add_module("conv2", nn.Conv2d(6, 16, 5))
        self.backbone.add_module("flatten", nn.Flatten())  # left out in the printed example, which cannot run so
        self.backbone.add_module("fc1", nn.Linear(16 * 5 * 5, 120))
        self.backbone.add_module("fc2", nn.Linear(120, 84))
        self.backbone.add_module("fc3", nn.Linear(84, 10))

        self.criterion = nn.CrossEntropyLoss()

    def forward(self, batch_inputs, data_samples, mode="tensor"):
        data_samples = torch.stack(data_samples)
        if mode == "tensor":
            return self.backbone(batch_inputs)
        elif mode == "predict":
            feats = self.backbone(batch_inputs)
            predictions = torch.argmax(feats, 1)
            return predictions
        elif mode == "loss":
            feats = self.backbone(batch_inputs)
            loss = self.criterion(feats, data_samples)
            return dict(loss=loss)  # noqa: C408


class SmallResNet(nn.Module):
    """Stands in for torchvision.models.resnet50(): one residual block, ten classes."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.fc = nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, imgs):
        x = self.stem(imgs)
        x = x + F.relu(self.norm(self.block(x)))
        return self.fc(x.mean(dim=(2, 3)))


class MMResNet50(BaseModel):
    def __init__(self):
        super().__init__()
        self.resnet = SmallResNet()

    def forward(self, imgs, labels, mode):
        x = self.resnet(imgs)
        if mode == "loss":
            return {"loss": F.cross_entropy(x, labels)}
        elif mode == "predict":
            return x, labels


class MMResNet50Spelled(MMResNet50):
    """With the three steps as printed, but for parse_losses, which is printed without its argument."""

    def train_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data)
        loss = self(*data, mode="loss")
        parsed_losses, log_vars = self.parse_losses(loss)
        optim_wrapper.update_params(parsed_losses)
        return log_vars

    def val_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data)
        outputs = self(*data, mode="predict")
        return outputs

    def test_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data)
        outputs = self(*data, mode="predict")
        return outputs


@MODELS.register_module("YourModelClassName")
class YourModelClassName(BaseModel):
    def __init__(self, hidden_size=8):
        super().__init__()
        self.hidden_size = hidden_size
        self.layer = nn.Linear(4, hidden_size)
        self.out = nn.Linear(hidden_size, 1)

    def forward(self, x, y=None, mode="tensor"):
        out = self.out(torch.relu(self.layer(x)))
        if mode == "loss":
            return {"loss_value": F.mse_loss(out, y), "size": out.abs()}
        return [out] if mode == "predict" else out


def toy_batches(n=4, rows=8, dim=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(dim, 1, generator=generator)
    xs = [torch.randn(rows, dim, generator=generator) for _ in range(n)]
    return [{"x": x, "y": x @ weights} for x in xs]


def image_batches(n=2, rows=4, side=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(rows, 3, side, side, generator=generator), torch.randint(0, 10, (rows,), generator=generator))
        for _ in range(n)
    ]
