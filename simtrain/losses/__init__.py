"""Losses over groups and over labelled pairs, each by its paper's name."""

from __future__ import annotations

from simtrain.losses.candidate_loss import CandidateLoss
from simtrain.losses.contrastive import ContrastiveLoss
from simtrain.losses.distances import Distance, distance_matrix, pair_distances, similarity_matrix
from simtrain.losses.group_loss import GroupLoss
from simtrain.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from simtrain.losses.pairwise_loss import PairwiseLoss
from simtrain.losses.similarity_loss import SimilarityLoss
from simtrain.losses.supcon import SupConLoss
from simtrain.losses.triplet import TripletLoss

__all__ = [
    "CandidateLoss",
    "ContrastiveLoss",
    "Distance",
    "GroupLoss",
    "MultipleNegativesRankingLoss",
    "PairwiseLoss",
    "SimilarityLoss",
    "SupConLoss",
    "TripletLoss",
    "distance_matrix",
    "pair_distances",
    "similarity_matrix",
]
