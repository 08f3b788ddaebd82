"""The metrics that ``dn.metrics`` offers: exact match, containment, F1, numbers, JSON, patterns, lengths, judges."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dspynb.errors import ConfigurationError
from dspynb.evaluation.metrics import matching
from dspynb.evaluation.metrics.fields import FieldMetric, plain_text
from dspynb.evaluation.metrics.weighted_mean import Weighted

if TYPE_CHECKING:
    from dspynb.evaluation.metrics.judge import Judge


def exact_match(
    field: str | None = None,
    *,
    label: str | None = None,
    normalize: Callable[[str], str] | None = plain_text,
) -> FieldMetric:
    """1 if the output equals the label, else 0. A list of labels holds alternatives, unless the output is a list too.

    ``normalize`` is applied to both texts: ``plain_text`` ignores case, spacing, quotes around and a full stop after;
    ``squad_text`` also punctuation and articles (not for numbers or one-letter choices); None compares as it is, types
    included.

    >>> metric = dn.metrics.exact_match()
    >>> metric({"answer": "Paris"}, {"answer": "paris."}).value
    1.0
    >>> metric({"answer": "Paris"}, {"answer": "Rome"}).feedback
    "answer is 'Rome'; expected 'Paris'."
    """
    if normalize is not None and not callable(normalize):
        raise ConfigurationError(f"exact_match: normalize must be a function of a text or None, got {normalize!r}")
    compare = partial(matching.compare_exactly, normalize=normalize)
    return FieldMetric("exact_match", "1 if the output equals the label, else 0.", compare, field, label)


def contains(
    field: str | None = None,
    *,
    label: str | None = None,
    text: str | Sequence[str] | None = None,
    ignore_case: bool = True,
    whole_words: bool = False,
) -> FieldMetric:
    """1 if the output contains the label, or the fixed ``text``; of several texts, the share that it contains.

    >>> metric = dn.metrics.contains(text=["ocean", "blue"])
    >>> metric({}, {"sentence": "The ocean is wide."})
    Score(value=0.5, feedback="sentence does not contain 'blue'.", parts={})
    """
    search = partial(matching.search_texts, ignore_case=ignore_case, whole_words=whole_words)
    if text is None:
        return FieldMetric("contains", "1 if the output contains the label, else 0.", search, field, label)
    if label is not None:
        raise ConfigurationError("contains: give label= or text=, not both")
    texts = [text] if isinstance(text, str) else list(text)
    if not texts or not all(isinstance(one, str) and one for one in texts):
        raise ConfigurationError(f"contains: text must be a text or several, none of them empty, got {text!r}")
    says = f"The share of these texts that the output contains: {', '.join(map(repr, texts))}."
    return FieldMetric("contains", says, partial(search, wanted=texts), field, labelled=False)


def f1(field: str | None = None, *, label: str | None = None) -> FieldMetric:
    """Token F1 as SQuAD defines it (Rajpurkar et al. 2016, section 6.1), the best over a list of references.

    Parts: ``precision``, ``recall``.

    >>> metric = dn.metrics.f1()
    >>> metric({"answer": "Norway, Sweden"}, {"answer": "the Norway"}).parts
    {'precision': 1.0, 'recall': 0.5}
    """
    says = "F1 of the output's words against the label's, without case, punctuation and articles."
    return FieldMetric("f1", says, matching.compare_tokens, field, label)


def numeric(
    field: str | None = None, *, label: str | None = None, abs_tol: float = 0.0, rel_tol: float = 1e-6
) -> FieldMetric:
    """1 if the output is within ``max(abs_tol, rel_tol * |label|)`` of the label, else 0.

    A text stands for the last number in it, which is where a worked answer has its result.

    >>> metric = dn.metrics.numeric(abs_tol=0.01)
    >>> metric({"answer": 12.5}, {"answer": "5 * 2.5 = 12.50"}).value
    1.0
    """
    for name, value in (("abs_tol", abs_tol), ("rel_tol", rel_tol)):
        if not isinstance(value, int | float) or not value >= 0:
            raise ConfigurationError(f"numeric: {name} must be a number of at least 0, got {value!r}")
    compare = partial(matching.compare_numbers, abs_tol=abs_tol, rel_tol=rel_tol)
    says = f"1 if the output's number is the label's (within {abs_tol:g}, or {rel_tol:g} of it), else 0."
    return FieldMetric("numeric", says, compare, field, label)


def json_equal(field: str | None = None, *, label: str | None = None, partial_credit: bool = False) -> FieldMetric:
    """1 if output and label are the same JSON, else 0, or with ``partial_credit`` the share of the label's leaves that
    are equal. Text is read as JSON. The feedback lists the paths that differ; part: ``equal_leaves``.

    >>> metric = dn.metrics.json_equal(partial_credit=True)
    >>> metric({"place": {"city": "Oslo", "zip": 150}}, {"place": '{"city": "Oslo", "zip": 151}'})
    Score(value=0.5, feedback='place differs: $.zip is 151, expected 150.', parts={'equal_leaves': 0.5})
    """
    compare = partial(matching.compare_json, partial=partial_credit)
    return FieldMetric("json_equal", "1 if output and label are the same JSON.", compare, field, label, nulls=True)


def regex(
    pattern: str, field: str | None = None, *, full: bool = False, message: str | None = None, flags: int = 0
) -> FieldMetric:
    """1 if ``pattern`` is found in the output (with ``full``: matches all of it), else 0 with ``message`` as feedback.

    Raises ConfigurationError for a malformed pattern. Model output is unbounded text: avoid nested quantifiers.

    >>> metric = dn.metrics.regex(r"\\d{4}", full=True, message="Give the year only.")
    >>> metric({}, {"year": "in 1905"}).feedback
    'Give the year only.'
    """
    try:
        compiled = re.compile(pattern, flags)
    except (re.error, TypeError, ValueError) as error:
        raise ConfigurationError(f"regex: the pattern {pattern!r} is malformed: {error}") from None
    compare = partial(matching.match_pattern, pattern=compiled, full=full, message=message)
    says = message or f"1 if the output {'matches' if full else 'contains'} the pattern {pattern!r}, else 0."
    return FieldMetric("regex", says, compare, field, labelled=False)


def word_count(
    field: str | None = None, *, at_most: int | None = None, at_least: int | None = None, label: str | None = None
) -> FieldMetric:
    """1 if the number of words (separated by spaces) is within the limits, else 0. ``label`` names the field of the row
    that holds the largest number, where it differs from row to row.

    >>> metric = dn.metrics.word_count(at_most=5)
    >>> metric({}, {"sentence": "The ocean is very wide and blue."}).feedback
    'sentence has 7 words; use at most 5.'
    """
    limits = [one for one in (at_most, at_least) if one is not None]
    if (label is None and not limits) or (label is not None and at_most is not None):
        raise ConfigurationError("word_count: give at_least=, and at_most= or label=; at least one of them")
    if any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in limits):
        raise ConfigurationError(f"word_count: limits are whole numbers of at least 0, got {limits}")
    compare = partial(matching.compare_length, at_least=at_least, at_most=at_most)
    bounds = [f"at least {at_least}"] * (at_least is not None) + [f"at most {label or at_most}"] * (
        label is not None or at_most is not None
    )
    says = f"1 if the output has {' and '.join(bounds)} words, else 0."
    return FieldMetric("word_count", says, compare, field, label, labelled=label is not None)


def weighted(metrics: Mapping[str, Callable[..., Any]], weights: Mapping[str, float] | None = None) -> Weighted:
    """Several metrics as one: the weighted mean of their values (equal weights by default), one part a metric.

    The feedback joins that of the metrics below 1. Metrics may be async; then so is the whole.

    >>> both = {"short": dn.metrics.word_count(at_most=5), "blue": dn.metrics.contains(text="blue")}
    >>> metric = dn.metrics.weighted(both, {"short": 1, "blue": 3})
    >>> metric({}, {"sentence": "The ocean is wide."})
    Score(value=0.25, feedback="blue (0): sentence does not contain 'blue'.", parts={'short': 1.0, 'blue': 0.0})
    """
    return Weighted(metrics, weights)


def llm_judge(
    criteria: str,
    *,
    lm: Any = None,
    field: str | None = None,
    label: str | None = None,
    adapter: Any = None,
    name: str = "llm_judge",
    **settings: Any,
) -> Judge:
    """An async metric: a model reads inputs, output and ``criteria``, gives its reasons (the feedback), then a score
    from 0 to 1 (LLM as a judge: Zheng et al. 2023; reasons before the score: G-Eval, Liu et al. 2023).

    ``lm``: the judge's own model; None takes the setting, which is the program's own unless that has another. ``field``
    judges one output instead of all; ``label`` also shows the judge that field of the row as a reference. ``settings``
    (temperature, …) go with its requests. Its calls are not in the program's trace, and see no hint or candidate; they
    count in the budget. Raises RewardError when its reply cannot be read as a score.

    >>> judge = dn.FunctionLM(lambda request: "reasons: It names no colour.\\nscore: 0.2")
    >>> metric = dn.metrics.llm_judge("The sentence names a colour.", lm=judge)
    >>> dn.run_sync(lambda: metric({"subject": "the ocean"}, {"sentence": "It is wide."}))
    Score(value=0.2, feedback='It names no colour.', parts={})
    """
    from dspynb.evaluation.metrics.judge import Judge  # its signatures are models of pydantic, which take a while

    return Judge(criteria, lm=lm, field=field, label=label, adapter=adapter, name=name, settings=settings)
