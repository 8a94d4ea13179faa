"""Samples, data sets, files and loaders."""

from simtrain.data.batches import SampleBatch, collate_samples
from simtrain.data.datasets import SimilarityGroupDataset, SimilarityPairDataset
from simtrain.data.files import read_groups, read_pairs, read_records
from simtrain.data.loaders import GroupSimilarityDataLoader, PairsSimilarityDataLoader, SimilarityDataLoader
from simtrain.data.samples import SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample
from simtrain.data.subgroups import shared_object_subgroups

__all__ = [
    "GroupSimilarityDataLoader",
    "PairsSimilarityDataLoader",
    "SampleBatch",
    "SimilarityDataLoader",
    "SimilarityGroupDataset",
    "SimilarityGroupSample",
    "SimilarityPairDataset",
    "SimilarityPairSample",
    "SimilarityTripletSample",
    "collate_samples",
    "read_groups",
    "read_pairs",
    "read_records",
    "shared_object_subgroups",
]
