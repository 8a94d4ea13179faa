"""How good a model is at retrieval, how sure that is, and whether another one is better.

================================  =============================================================================
wanted                            where
================================  =============================================================================
a model on a test set             :func:`evaluate`; from embeddings on disk: :func:`evaluate_embeddings`
... on random parts of it         :func:`evaluate_subsets`
in training: the validation data  :class:`SetRetrieval`, in ``TrainableModel(evaluators=...)``
... a test set of its own         :class:`HeldOutRetrieval`, likewise
... batch by batch                :class:`simtrain.AttachedMetric` around a class of :mod:`simtrain.metrics`
intervals; which model is better  :meth:`RetrievalResult.interval`, :meth:`RetrievalResult.compare`
tables                            :func:`result_table`, :func:`results_table`, :func:`comparison_table`
BEIR folders                      :func:`read_beir`, :func:`write_beir`; they hold a :class:`JudgedSearch`
TREC runs and judgements          :func:`read_run`, :func:`read_qrels`, :func:`search_run`, :func:`run_metrics`
benchmarks of images              :func:`read_cub200`, :func:`read_online_products`, ...
mteb                              ``mteb.evaluate(as_mteb(model), tasks)``
what goes wrong                   :func:`worst_queries`, :func:`confused_classes`, :func:`likely_wrong_labels`
items on both sides of a split    :func:`near_duplicates`
better figures without training   :class:`PostProcessing`: expansion, whitening, re-ranking
hard negatives to train with      :func:`mine_hard_negatives`
================================  =============================================================================

Example:
    >>> from simtrain import SimilarityModel
    >>> from simtrain.data import SimilarityGroupSample
    >>> from simtrain.encoders import NgramEncoder
    >>> from simtrain.heads import EmptyHead
    >>> model = SimilarityModel(NgramEncoder(64), EmptyHead(64))
    >>> texts = ["sort a list", "sort a tuple", "open a file", "open a folder"]
    >>> test = [SimilarityGroupSample(text, row // 2) for row, text in enumerate(texts)]
    >>> print(result_table(evaluate(model, test, k=1), ["mrr"]))
    | metric | value | 95% interval   |
    | ------ | ----- | -------------- |
    | mrr    | 1.000 | [1.000, 1.000] |
"""

from simtrain.evaluation.base_metric import BaseMetric, Numbered
from simtrain.evaluation.beir import read_beir, read_beir_qrels, write_beir
from simtrain.evaluation.comparison import Comparison, compare_scores
from simtrain.evaluation.error_analysis import confused_classes, likely_wrong_labels, near_duplicates, worst_queries
from simtrain.evaluation.error_report import error_report
from simtrain.evaluation.evaluator import Evaluator
from simtrain.evaluation.hard_negatives import mine_hard_negatives
from simtrain.evaluation.held_out import HeldOutRetrieval
from simtrain.evaluation.image_sets import (
    ImageSet,
    read_cars196,
    read_cub200,
    read_in_shop,
    read_inaturalist,
    read_online_products,
)
from simtrain.evaluation.judged_search import JudgedSearch, search_run
from simtrain.evaluation.mined_negatives import MinedNegatives
from simtrain.evaluation.mteb_encoder import as_mteb
from simtrain.evaluation.pair_correlation import PairCorrelation
from simtrain.evaluation.post_processing import PostProcessing
from simtrain.evaluation.query_expansion import augment_gallery, expand_queries
from simtrain.evaluation.query_lists import Qrels, Run
from simtrain.evaluation.query_scores import QueryScores
from simtrain.evaluation.reciprocal_reranking import ReciprocalReranking
from simtrain.evaluation.retrieval import RetrievalResult, RetrievalTask, evaluate, retrieval_task
from simtrain.evaluation.run_measures import run_metrics
from simtrain.evaluation.saved_embeddings import evaluate_embeddings, read_embeddings
from simtrain.evaluation.set_reading import read_test_set
from simtrain.evaluation.set_retrieval import SetRetrieval
from simtrain.evaluation.significance import PairedTest, bootstrap_interval, paired_test
from simtrain.evaluation.subsets import SubsetResult, evaluate_subsets
from simtrain.evaluation.table import comparison_table, result_table, results_table
from simtrain.evaluation.trec import read_qrels, read_run, write_qrels, write_run
from simtrain.evaluation.whitening import Whitening, fit_whitening

__all__ = [
    "BaseMetric",
    "Comparison",
    "Evaluator",
    "HeldOutRetrieval",
    "ImageSet",
    "JudgedSearch",
    "MinedNegatives",
    "Numbered",
    "PairCorrelation",
    "PairedTest",
    "PostProcessing",
    "Qrels",
    "QueryScores",
    "ReciprocalReranking",
    "RetrievalResult",
    "RetrievalTask",
    "Run",
    "SetRetrieval",
    "SubsetResult",
    "Whitening",
    "as_mteb",
    "augment_gallery",
    "bootstrap_interval",
    "compare_scores",
    "comparison_table",
    "confused_classes",
    "error_report",
    "evaluate",
    "evaluate_embeddings",
    "evaluate_subsets",
    "expand_queries",
    "fit_whitening",
    "likely_wrong_labels",
    "mine_hard_negatives",
    "near_duplicates",
    "paired_test",
    "read_beir",
    "read_beir_qrels",
    "read_cars196",
    "read_cub200",
    "read_embeddings",
    "read_in_shop",
    "read_inaturalist",
    "read_online_products",
    "read_qrels",
    "read_run",
    "read_test_set",
    "result_table",
    "results_table",
    "retrieval_task",
    "run_metrics",
    "search_run",
    "worst_queries",
    "write_beir",
    "write_qrels",
    "write_run",
]
