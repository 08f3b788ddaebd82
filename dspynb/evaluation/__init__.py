"""Evaluation of programs on rows: metrics and feedback, results, comparisons, and the reading of data."""

from dspynb.evaluation import metrics
from dspynb.evaluation.comparison import Comparison, Grid, compare, grid
from dspynb.evaluation.data_io.datasets import load_dataset
from dspynb.evaluation.data_io.reading import read_examples
from dspynb.evaluation.data_io.splitting import Splits, fingerprint, split
from dspynb.evaluation.evaluator import Evaluate, evaluate
from dspynb.evaluation.metrics import feedback
from dspynb.evaluation.result import Evaluation
from dspynb.evaluation.tables import score_table

__all__ = [
    "Comparison",
    "Evaluate",
    "Evaluation",
    "Grid",
    "Splits",
    "compare",
    "evaluate",
    "feedback",
    "fingerprint",
    "grid",
    "load_dataset",
    "metrics",
    "read_examples",
    "score_table",
    "split",
]
