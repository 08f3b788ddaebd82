"""Metrics with textual feedback, for ``evaluate``, ``Refine`` and the optimizers: ``dn.metrics.exact_match()``.

Each function makes a metric: a callable ``(row, prediction) -> Score`` with a value from 0 to 1. It compares the output
``field`` of the prediction with the field ``label`` of the row; by default, both are the only name that prediction and
row have in common. The feedback contains the label, so use it for training rows only.

>>> metric = dn.metrics.exact_match()
>>> metric(dn.Example(question="2+2?", answer="4"), dn.Prediction(answer="four"))
Score(value=0.0, feedback="answer is 'four'; expected '4'.", parts={})
"""

from dspynb.evaluation.metrics.builtin import (
    contains,
    exact_match,
    f1,
    json_equal,
    llm_judge,
    numeric,
    regex,
    weighted,
    word_count,
)
from dspynb.evaluation.metrics.fields import plain_text
from dspynb.evaluation.metrics.matching import squad_text
from dspynb.evaluation.metrics.semantic import CompleteAndGrounded, SemanticF1

__all__ = [
    "CompleteAndGrounded",
    "SemanticF1",
    "contains",
    "exact_match",
    "f1",
    "json_equal",
    "llm_judge",
    "numeric",
    "plain_text",
    "regex",
    "squad_text",
    "weighted",
    "word_count",
]
