"""Group losses as their papers write them, one anchor and one candidate at a time, in float64."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import cosine_similarity

from simtrain.losses import pair_distances


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_groups(seed, n, n_groups):
    return torch.randint(n_groups, (n,), generator=torch.Generator().manual_seed(seed))


def masks(groups, candidate_groups, own):
    same = groups.unsqueeze(1) == candidate_groups
    return same & ~own, ~same & ~own


def cosines(anchors, candidates, mask, a):
    """Cosine of anchor ``a`` to each of its candidates in ``mask``."""
    return [cosine_similarity(anchors[a], candidates[c], dim=0) for c in range(len(candidates)) if mask[a, c]]


def mean(terms, anchors):
    return torch.stack(terms).mean() if terms else (anchors * 0).sum()


def circle(anchors, candidates, positive, negative, m, gamma):
    terms = []
    for a in range(len(anchors)):
        s_p, s_n = cosines(anchors, candidates, positive, a), cosines(anchors, candidates, negative, a)
        if not s_p or not s_n:
            continue
        # alpha_p = [1 + m - s_p]+ and alpha_n = [s_n + m]+ weigh the gradient, and have none.
        of_n = sum(torch.exp(gamma * max(s.item() + m, 0) * (s - m)) for s in s_n)
        of_p = sum(torch.exp(-gamma * max(1 + m - s.item(), 0) * (s - (1 - m))) for s in s_p)
        terms.append(torch.log(1 + of_n * of_p))
    return mean(terms, anchors)


def multi_similarity(anchors, candidates, positive, negative, alpha, beta, lambda_, epsilon):
    total = (anchors * 0).sum()
    for a in range(len(anchors)):
        s_p, s_n = cosines(anchors, candidates, positive, a), cosines(anchors, candidates, negative, a)
        if epsilon is not None:
            lowest, highest = min(s_p, default=math.inf), max(s_n, default=-math.inf)
            s_n = [s for s in s_n if s > lowest - epsilon]
            s_p = [s for s in s_p if s < highest + epsilon]
        pull = sum((torch.exp(-alpha * (s - lambda_)) for s in s_p), torch.zeros(()).double())
        push = sum((torch.exp(beta * (s - lambda_)) for s in s_n), torch.zeros(()).double())
        total = total + torch.log(1 + pull) / alpha + torch.log(1 + push) / beta
    return total / len(anchors)


def ntxent(anchors, candidates, positive, negative, tau):
    terms = []
    for a in range(len(anchors)):
        others = sum((torch.exp(s / tau) for s in cosines(anchors, candidates, negative, a)), torch.zeros(()).double())
        for s in cosines(anchors, candidates, positive, a):
            terms.append(-torch.log(torch.exp(s / tau) / (torch.exp(s / tau) + others)))
    return mean(terms, anchors)


def fast_ap(anchors, candidates, positive, negative, num_bins):
    width, terms = 4 / num_bins, []
    for a in range(len(anchors)):
        z_p = [2 - 2 * s for s in cosines(anchors, candidates, positive, a)]
        z_n = [2 - 2 * s for s in cosines(anchors, candidates, negative, a)]
        if not z_p:
            continue
        precision, until_p, until_all = 0.0, 0.0, 0.0
        for bin in range(num_bins + 1):
            h_p = sum((torch.relu(1 - (z - bin * width).abs() / width) for z in z_p), torch.zeros(()).double())
            h_n = sum((torch.relu(1 - (z - bin * width).abs() / width) for z in z_n), torch.zeros(()).double())
            until_p, until_all = until_p + h_p, until_all + h_p + h_n
            if until_all > 0:
                precision = precision + h_p * until_p / until_all
        terms.append(1 - precision / len(z_p))
    return mean(terms, anchors)


def online_contrastive(anchors, candidates, positive, negative, margin, distance, mining):
    pull, push = [], []
    for a in range(len(anchors)):
        d = [pair_distances(anchors[a : a + 1], candidates[c : c + 1], distance)[0] for c in range(len(candidates))]
        d_p = [x for c, x in enumerate(d) if positive[a, c]]
        d_n = [x for c, x in enumerate(d) if negative[a, c]]
        if mining == "hard":
            d_p, d_n = [max(d_p)] if d_p else [], [min(d_n)] if d_n else []
        pull += [x**2 / 2 for x in d_p]
        push += [torch.relu(margin - x) ** 2 / 2 for x in d_n]
    return mean(pull, anchors) + mean(push, anchors)
