"""Class-weight losses beside their papers' formulas, written with loops."""

import math

import torch
from torch.nn.functional import cosine_similarity

from simtrain.losses import ArcFaceLoss, CenterLoss, CosFaceLoss, ProxyAnchorLoss, ProxyNCALoss, SoftmaxLoss


def arcface(x, groups, weights, scale=64.0, margins=0.5):
    rows = []
    for row, group in zip(x, groups.tolist(), strict=True):
        margin = margins if isinstance(margins, float) else margins[group]
        logits = []
        for j, class_weights in enumerate(weights.view(len(weights), -1, x.shape[1])):
            cosine = max((cosine_similarity(row, w, dim=0) for w in class_weights), key=lambda cosine: cosine.item())
            if j == group:
                angle = torch.acos(cosine)
                inside = angle.item() < math.pi - margin
                cosine = torch.cos(angle + margin) if inside else cosine - margin * math.sin(margin)
            logits.append(scale * cosine)
        rows.append(-torch.log_softmax(torch.stack(logits), 0)[group])
    return torch.stack(rows).mean()


def cosface(x, groups, weights, scale=64.0, margin=0.35):
    rows = []
    for row, group in zip(x, groups.tolist(), strict=True):
        logits = [scale * (cosine_similarity(row, w, dim=0) - margin * (j == group)) for j, w in enumerate(weights)]
        rows.append(-torch.log_softmax(torch.stack(logits), 0)[group])
    return torch.stack(rows).mean()


def softmax(x, groups, weights, temperature=0.05, normalize=True, smoothing=0.0):
    rows = []
    for row, group in zip(x, groups.tolist(), strict=True):
        similarities = [cosine_similarity(row, w, dim=0) if normalize else row @ w for w in weights]
        logs = torch.log_softmax(torch.stack(similarities) / temperature, 0)
        target = torch.full_like(logs, smoothing / len(weights))
        target[group] += 1 - smoothing
        rows.append(-(target * logs).sum())
    return torch.stack(rows).mean()


def proxy_anchor(x, groups, weights, scale=32.0, margin=0.1):
    pull, push = [], []
    for p, proxy in enumerate(weights):
        cosines = [cosine_similarity(row, proxy, dim=0) for row in x]
        own = [torch.exp(-scale * (s - margin)) for s, g in zip(cosines, groups.tolist(), strict=True) if g == p]
        other = [torch.exp(scale * (s + margin)) for s, g in zip(cosines, groups.tolist(), strict=True) if g != p]
        if own:
            pull.append(torch.log(1 + sum(own)))
        push.append(torch.log(1 + sum(other)) if other else (x * 0).sum())
    return torch.stack(pull).mean() + torch.stack(push).mean()


def proxy_nca(x, groups, weights, temperature=1.0, own_in_sum=False):
    rows = []
    for row, group in zip(x, groups.tolist(), strict=True):
        distances = [((row / row.norm()) - (w / w.norm())).square().sum() / temperature for w in weights]
        others = [torch.exp(-d) for j, d in enumerate(distances) if own_in_sum or j != group]
        rows.append(-torch.log(torch.exp(-distances[group]) / sum(others)))
    return torch.stack(rows).mean()


def center(x, groups, weights, lambda_c=0.5):
    squares = [(row - weights[group]).square().sum() for row, group in zip(x, groups.tolist(), strict=True)]
    return lambda_c / 2 * torch.stack(squares).mean()


SIZE, N_GROUPS = 4, 5
COUNTS = [1, 3, 10, 40, 1000]
# (arguments beyond the sizes, reference with the same arguments)
CASES = {
    "arcface": (ArcFaceLoss, {}, arcface),
    "arcface, small scale": (ArcFaceLoss, {"scale": 2.0, "margin": 0.9}, lambda *a: arcface(*a, 2.0, 0.9)),
    "arcface, sub-centers": (ArcFaceLoss, {"sub_centers": 3, "scale": 8}, lambda *a: arcface(*a, 8.0)),
    "arcface, dynamic": (
        ArcFaceLoss,
        {"group_counts": COUNTS, "scale": 4.0},
        lambda *a: arcface(*a, 4.0, ArcFaceLoss(SIZE, N_GROUPS, group_counts=COUNTS).margins.tolist()),
    ),
    "arcface, sub-centers and dynamic": (
        ArcFaceLoss,
        {"sub_centers": 2, "group_counts": COUNTS, "scale": 4.0},
        lambda *a: arcface(*a, 4.0, ArcFaceLoss(SIZE, N_GROUPS, group_counts=COUNTS).margins.tolist()),
    ),
    "cosface": (CosFaceLoss, {}, cosface),
    "cosface, words": (CosFaceLoss, {"scale": 3.0, "margin": 0.1}, lambda *a: cosface(*a, 3.0, 0.1)),
    "softmax": (SoftmaxLoss, {}, softmax),
    "softmax, dot": (
        SoftmaxLoss,
        {"temperature": 0.7, "normalize": False, "label_smoothing": 0.2},
        lambda *a: softmax(*a, 0.7, False, 0.2),
    ),
    "proxy anchor": (ProxyAnchorLoss, {}, proxy_anchor),
    "proxy anchor, words": (ProxyAnchorLoss, {"scale": 2, "margin": 0.5}, lambda *a: proxy_anchor(*a, 2, 0.5)),
    "proxy nca": (ProxyNCALoss, {}, proxy_nca),
    "proxy nca++": (
        ProxyNCALoss,
        {"temperature": 1 / 9, "own_in_sum": True},
        lambda *a: proxy_nca(*a, 1 / 9, True),
    ),
    "center": (CenterLoss, {}, center),
    "center, lambda": (CenterLoss, {"lambda_c": 2.0}, lambda *a: center(*a, 2.0)),
}


def build(name, size=SIZE, num_groups=N_GROUPS, seed=0):
    kind, words, reference = CASES[name]
    loss = kind(size, num_groups, **words)
    generator = torch.Generator().manual_seed(seed)
    loss.weights.data = torch.randn(loss.weights.shape, generator=generator, dtype=torch.float64)
    return loss, reference
