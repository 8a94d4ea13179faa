"""The image sets of the metric-learning papers, with the splits and depths that the papers report."""

from simtrain.evaluation.image_sets.cars196 import read_cars196
from simtrain.evaluation.image_sets.cub200 import read_cub200
from simtrain.evaluation.image_sets.image_set import ImageSet
from simtrain.evaluation.image_sets.in_shop import read_in_shop
from simtrain.evaluation.image_sets.inaturalist import read_inaturalist
from simtrain.evaluation.image_sets.online_products import read_online_products

__all__ = [
    "ImageSet",
    "read_cars196",
    "read_cub200",
    "read_in_shop",
    "read_inaturalist",
    "read_online_products",
]
