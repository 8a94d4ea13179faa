"""How good a model is at retrieval, how sure that is, and whether another one is better."""

from simtrain.evaluation.hard_negatives import mine_hard_negatives
from simtrain.evaluation.mined_negatives import MinedNegatives
from simtrain.evaluation.retrieval import RetrievalResult, RetrievalTask, evaluate, retrieval_task
from simtrain.evaluation.significance import PairedTest, bootstrap_interval, paired_test

__all__ = [
    "MinedNegatives",
    "PairedTest",
    "RetrievalResult",
    "RetrievalTask",
    "bootstrap_interval",
    "evaluate",
    "mine_hard_negatives",
    "paired_test",
    "retrieval_task",
]
