"""Metrics with textual feedback, for ``evaluate``, ``Refine`` and the optimizers: ``dn.metrics.exact_match()``.

Each function makes a metric: a callable ``(row, prediction) -> Score`` with a value from 0 to 1. ``field`` names the
output and ``label`` the field of the row it is compared with; by default, the only name that both have. Feedback tells
the label where there is one: it is meant for training rows, not for rows whose label must stay unseen.

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

__all__ = [
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
