"""Samples, data sets, files and loaders."""

from simtrain.data.batches import SampleBatch, collate_samples
from simtrain.data.datasets import SimilarityGroupDataset, SimilarityPairDataset, SimilarityTripletDataset
from simtrain.data.files import read_groups, read_pairs, read_records
from simtrain.data.group_check import check_groups
from simtrain.data.image_folder import read_image_folder
from simtrain.data.iterable_dataset import SimilarityIterableDataset
from simtrain.data.label_names import load_label_names, save_label_names
from simtrain.data.loaders import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    SimilarityDataLoader,
    TripletSimilarityDataLoader,
)
from simtrain.data.query_gallery import QueryGallery, read_query_gallery
from simtrain.data.resumable_loader import ResumableDataLoader
from simtrain.data.samplers import (
    BalancedSampler,
    HardClassSampler,
    NoDuplicatesSampler,
    PKSampler,
    ShuffleSampler,
    SimilaritySampler,
)
from simtrain.data.samples import SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample
from simtrain.data.splits import split_groups, split_pairs
from simtrain.data.subgroups import shared_object_subgroups
from simtrain.data.triplets import read_triplets

__all__ = [
    "BalancedSampler",
    "GroupSimilarityDataLoader",
    "HardClassSampler",
    "NoDuplicatesSampler",
    "PKSampler",
    "PairsSimilarityDataLoader",
    "QueryGallery",
    "ResumableDataLoader",
    "SampleBatch",
    "ShuffleSampler",
    "SimilarityDataLoader",
    "SimilarityGroupDataset",
    "SimilarityGroupSample",
    "SimilarityIterableDataset",
    "SimilarityPairDataset",
    "SimilarityPairSample",
    "SimilaritySampler",
    "SimilarityTripletDataset",
    "SimilarityTripletSample",
    "TripletSimilarityDataLoader",
    "check_groups",
    "collate_samples",
    "load_label_names",
    "read_groups",
    "read_image_folder",
    "read_pairs",
    "read_query_gallery",
    "read_records",
    "read_triplets",
    "save_label_names",
    "shared_object_subgroups",
    "split_groups",
    "split_pairs",
]
