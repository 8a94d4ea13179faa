"""Losses over groups and over labelled pairs, each by its paper's name."""

from __future__ import annotations

from simtrain.losses.arcface import ArcFaceLoss
from simtrain.losses.candidate_loss import CandidateLoss
from simtrain.losses.center import CenterLoss
from simtrain.losses.circle import CircleLoss
from simtrain.losses.class_weight_loss import ClassWeightLoss
from simtrain.losses.combined import CombinedLoss
from simtrain.losses.contrastive import ContrastiveLoss
from simtrain.losses.cosent import CoSENTLoss
from simtrain.losses.cosface import CosFaceLoss
from simtrain.losses.cosine_similarity import CosineSimilarityLoss
from simtrain.losses.distances import (
    Distance,
    distance_matrix,
    pair_distances,
    pair_similarities,
    similarity_matrix,
)
from simtrain.losses.fast_ap import FastAPLoss
from simtrain.losses.group_contrastive import GroupContrastiveLoss
from simtrain.losses.group_loss import GroupLoss
from simtrain.losses.matryoshka import MatryoshkaLoss
from simtrain.losses.miners import (
    DistanceWeightedMiner,
    EasyPositiveMiner,
    HardestMiner,
    Miner,
    MultiSimilarityMiner,
    SemiHardMiner,
)
from simtrain.losses.multi_similarity import MultiSimilarityLoss
from simtrain.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from simtrain.losses.ntxent import NTXentLoss
from simtrain.losses.online_contrastive import OnlineContrastiveLoss
from simtrain.losses.pairwise_loss import PairwiseLoss
from simtrain.losses.pml import PytorchMetricLearningWrapper
from simtrain.losses.pml_pairs import PytorchMetricLearningPairs
from simtrain.losses.proxy_anchor import ProxyAnchorLoss
from simtrain.losses.proxy_nca import ProxyNCALoss
from simtrain.losses.score_distillation import DistillKLDivLoss, MarginMSELoss
from simtrain.losses.similarity_distillation import SimilarityDistillationLoss, teacher_embeddings
from simtrain.losses.similarity_loss import SimilarityLoss
from simtrain.losses.softmax import SoftmaxLoss
from simtrain.losses.supcon import SupConLoss
from simtrain.losses.temperature import LearntTemperature, ScheduledTemperature
from simtrain.losses.triplet import TripletLoss

__all__ = [
    "ArcFaceLoss",
    "CandidateLoss",
    "CenterLoss",
    "CircleLoss",
    "ClassWeightLoss",
    "CoSENTLoss",
    "CombinedLoss",
    "ContrastiveLoss",
    "CosFaceLoss",
    "CosineSimilarityLoss",
    "Distance",
    "DistanceWeightedMiner",
    "DistillKLDivLoss",
    "EasyPositiveMiner",
    "FastAPLoss",
    "GroupContrastiveLoss",
    "GroupLoss",
    "HardestMiner",
    "LearntTemperature",
    "MarginMSELoss",
    "MatryoshkaLoss",
    "Miner",
    "MultiSimilarityLoss",
    "MultiSimilarityMiner",
    "MultipleNegativesRankingLoss",
    "NTXentLoss",
    "OnlineContrastiveLoss",
    "PairwiseLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "PytorchMetricLearningPairs",
    "PytorchMetricLearningWrapper",
    "ScheduledTemperature",
    "SemiHardMiner",
    "SimilarityDistillationLoss",
    "SimilarityLoss",
    "SoftmaxLoss",
    "SupConLoss",
    "TripletLoss",
    "distance_matrix",
    "pair_distances",
    "pair_similarities",
    "similarity_matrix",
    "teacher_embeddings",
]
