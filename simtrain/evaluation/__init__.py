"""How good a model is at retrieval, how sure that is, and whether another one is better."""

from simtrain.evaluation.retrieval import RetrievalResult, RetrievalTask, evaluate, retrieval_task
from simtrain.evaluation.significance import PairedTest, bootstrap_interval, paired_test

__all__ = [
    "PairedTest",
    "RetrievalResult",
    "RetrievalTask",
    "bootstrap_interval",
    "evaluate",
    "paired_test",
    "retrieval_task",
]
