"""Voting: the answer that most predictions give (self-consistency, Wang et al., 2022, arXiv:2203.11171)."""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from dspynb.data import Prediction
from dspynb.errors import InputError, nearest

__all__ = ["majority"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def majority(
    predictions: Iterable[Any], field: str | None = None, normalize: Callable[[Any], Any] | None = None
) -> Prediction:
    """Return the first prediction whose ``field`` (default: the last one) has the most frequent value. A tie goes to
    the value that comes first. Self-consistency: Wang et al. 2022, arXiv:2203.11171.

    ``predictions``: predictions or dicts. Exceptions, which ``batch`` returns, and None do not vote. ``normalize``: a
    function of a value; values with equal results count as one, and None does not vote unless all are None. By default
    it ignores case, punctuation, articles and extra spaces of texts. Raises InputError if there is no vote.

    >>> dn.majority([{"answer": "Paris"}, {"answer": "Rome"}, {"answer": "paris."}], field="answer")
    Prediction(answer='Paris')
    """
    if isinstance(predictions, Mapping | str) or not isinstance(predictions, Iterable):
        raise InputError(f"majority takes a list of predictions, got {type(predictions).__name__}")
    voters = [p for p in predictions if p is not None and not isinstance(p, BaseException)]
    if not voters:
        raise InputError("majority got no predictions; all rows failed or there were none")
    for i, voter in enumerate(voters):
        if not isinstance(voter, Mapping) or not voter:
            raise InputError(
                f"prediction {i} is {type(voter).__name__}; majority takes predictions or dicts with outputs"
            )
    if field is None:
        field = list(voters[0])[-1]
    votes = [_vote(voter, field, normalize or _normalized_text) for voter in voters]
    counts = Counter(vote for vote in votes if vote is not None) or Counter(votes)
    best = max(counts, key=lambda vote: counts[vote])  # of equal counts the first, since a Counter is ordered
    winner = voters[votes.index(best)]
    return winner if isinstance(winner, Prediction) else Prediction(winner)


def _vote(voter: Mapping[str, Any], field: str, normalize: Callable[[Any], Any]) -> Hashable:
    if field not in voter:
        raise InputError(f"a prediction has no field {field!r}.{nearest(field, voter)} It has: {', '.join(voter)}")
    value = normalize(voter[field])
    if isinstance(value, Hashable):
        try:
            hash(value)
        except TypeError:  # a tuple of lists
            pass
        else:
            return value
    return json.dumps(to_jsonable_python(value, fallback=repr), sort_keys=True)


def _normalized_text(value: object) -> Any:
    if not isinstance(value, str):
        return value
    text = unicodedata.normalize("NFD", value).casefold().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split()) or None
