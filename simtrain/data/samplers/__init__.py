"""Orders of samples: shuffled, by groups, balanced, hard, without duplicates."""

from simtrain.data.samplers.balanced_sampler import BalancedSampler
from simtrain.data.samplers.hard_class_sampler import HardClassSampler
from simtrain.data.samplers.no_duplicates_sampler import NoDuplicatesSampler
from simtrain.data.samplers.pk_sampler import PKSampler
from simtrain.data.samplers.shuffle_sampler import ShuffleSampler
from simtrain.data.samplers.similarity_sampler import SimilaritySampler

__all__ = [
    "BalancedSampler",
    "HardClassSampler",
    "NoDuplicatesSampler",
    "PKSampler",
    "ShuffleSampler",
    "SimilaritySampler",
]
