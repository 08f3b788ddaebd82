"""The metrics in ``dn.metrics``: exact match, containment, F1, numbers, JSON, patterns, lengths, judges."""

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
    from dspynb.adapters.base import Adapter
    from dspynb.evaluation.metrics.judge import Judge
    from dspynb.lm.protocol import LMProtocol


def exact_match(
    field: str | None = None,
    *,
    label: str | None = None,
    normalize: Callable[[str], str] | None = plain_text,
) -> FieldMetric:
    """1 if the output equals the label, else 0. A list of labels holds alternatives, unless the output is a list too.

    ``field``, ``label``: the names of output and label; see ``dn.metrics`` for the defaults. ``normalize``: a function
    that is applied to both texts before they are compared. ``plain_text``, the default, ignores case, spacing, quotes
    around the text and a full stop at its end. ``squad_text`` also ignores punctuation and articles; do not use it for
    numbers or one-letter choices. None compares the values as they are, including their types.

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
    """1 if the output contains a text, else 0; for several texts, the share of them that it contains.

    ``field``, ``label``: the names of output and label; see ``dn.metrics`` for the defaults. ``text``: the text or
    texts to look for; None looks for the label. ``ignore_case``: True by default. ``whole_words``: whether the text
    must begin and end at word boundaries, False by default.

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
    if not texts or not all(isinstance(item, str) and item for item in texts):
        raise ConfigurationError(f"contains: text must be a text or several, none of them empty, got {text!r}")
    description = f"The share of these texts that the output contains: {', '.join(map(repr, texts))}."
    return FieldMetric("contains", description, partial(search, expected=texts), field, labelled=False)


def f1(field: str | None = None, *, label: str | None = None) -> FieldMetric:
    """Token F1 as SQuAD defines it (Rajpurkar et al. 2016, section 6.1).

    If the label is a list of references, the best F1 counts. Parts: ``precision``, ``recall``. ``field``, ``label``:
    the names of output and label; see ``dn.metrics`` for the defaults.

    >>> metric = dn.metrics.f1()
    >>> metric({"answer": "Norway, Sweden"}, {"answer": "the Norway"}).parts
    {'precision': 1.0, 'recall': 0.5}
    """
    description = "F1 of the output's words against the label's, without case, punctuation and articles."
    return FieldMetric("f1", description, matching.compare_tokens, field, label)


def numeric(
    field: str | None = None, *, label: str | None = None, abs_tol: float = 0.0, rel_tol: float = 1e-6
) -> FieldMetric:
    """1 if the output is within ``max(abs_tol, rel_tol * |label|)`` of the label, else 0.

    From a text, the last number is read, since a worked answer ends with its result. ``field``, ``label``: the names of
    output and label; see ``dn.metrics`` for the defaults.

    >>> metric = dn.metrics.numeric(abs_tol=0.01)
    >>> metric({"answer": 12.5}, {"answer": "5 * 2.5 = 12.50"}).value
    1.0
    """
    for name, value in (("abs_tol", abs_tol), ("rel_tol", rel_tol)):
        if not isinstance(value, int | float) or not value >= 0:
            raise ConfigurationError(f"numeric: {name} must be a number of at least 0, got {value!r}")
    compare = partial(matching.compare_numbers, abs_tol=abs_tol, rel_tol=rel_tol)
    description = f"1 if the output's number is the label's (within {abs_tol:g}, or {rel_tol:g} of it), else 0."
    return FieldMetric("numeric", description, compare, field, label)


def json_equal(field: str | None = None, *, label: str | None = None, partial_credit: bool = False) -> FieldMetric:
    """1 if output and label are the same JSON, else 0.

    Text is parsed as JSON. The feedback lists the paths that differ. Part: ``equal_leaves``. ``field``, ``label``: the
    names of output and label; see ``dn.metrics`` for the defaults. ``partial_credit``: score the share of the label's
    leaves that are equal, instead of 0; False by default.

    >>> metric = dn.metrics.json_equal(partial_credit=True)
    >>> metric({"place": {"city": "Oslo", "zip": 150}}, {"place": '{"city": "Oslo", "zip": 151}'})
    Score(value=0.5, feedback='place differs: $.zip is 151, expected 150.', parts={'equal_leaves': 0.5})
    """
    compare = partial(matching.compare_json, partial=partial_credit)
    description = "1 if output and label are the same JSON."
    return FieldMetric("json_equal", description, compare, field, label, allows_null=True)


def regex(
    pattern: str, field: str | None = None, *, full: bool = False, message: str | None = None, flags: int = 0
) -> FieldMetric:
    """1 if the output contains a match of a regular expression, else 0.

    ``pattern``: the regular expression. Model output can be long, so avoid nested quantifiers. ``field``: the name of
    the output; by default the only one. ``full``: whether the pattern must match the whole output, False by default.
    ``message``: the feedback if it does not match. ``flags``: those of Python's ``re``. Raises ConfigurationError for a
    malformed pattern.

    >>> metric = dn.metrics.regex(r"\\d{4}", full=True, message="Give the year only.")
    >>> metric({}, {"year": "in 1905"}).feedback
    'Give the year only.'
    """
    try:
        compiled = re.compile(pattern, flags)
    except (re.error, TypeError, ValueError) as error:
        raise ConfigurationError(f"regex: the pattern {pattern!r} is malformed: {error}") from None
    compare = partial(matching.match_pattern, pattern=compiled, full=full, message=message)
    verb = "matches" if full else "contains"
    description = message or f"1 if the output {verb} the pattern {pattern!r}, else 0."
    return FieldMetric("regex", description, compare, field, labelled=False)


def word_count(
    field: str | None = None, *, at_most: int | None = None, at_least: int | None = None, label: str | None = None
) -> FieldMetric:
    """1 if the number of words, separated by spaces, is within limits, else 0.

    ``field``: the name of the output; by default the only one. ``at_most``, ``at_least``: the limits; None sets none.
    ``label``: the field of the row that holds the largest number, in place of ``at_most``.

    >>> metric = dn.metrics.word_count(at_most=5)
    >>> metric({}, {"sentence": "The ocean is very wide and blue."}).feedback
    'sentence has 7 words; use at most 5.'
    """
    limits = [limit for limit in (at_most, at_least) if limit is not None]
    if (label is None and not limits) or (label is not None and at_most is not None):
        raise ConfigurationError("word_count: give at_least=, and at_most= or label=; at least one of them")
    if any(isinstance(limit, bool) or not isinstance(limit, int) or limit < 0 for limit in limits):
        raise ConfigurationError(f"word_count: limits are whole numbers of at least 0, got {limits}")
    compare = partial(matching.compare_length, at_least=at_least, at_most=at_most)
    bounds = []
    if at_least is not None:
        bounds.append(f"at least {at_least}")
    if label is not None or at_most is not None:
        bounds.append(f"at most {label or at_most}")
    description = f"1 if the output has {' and '.join(bounds)} words, else 0."
    return FieldMetric("word_count", description, compare, field, label, labelled=label is not None)


def weighted(metrics: Mapping[str, Callable[..., Any]], weights: Mapping[str, float] | None = None) -> Weighted:
    """The weighted mean of several metrics. The Score has a part for each metric.

    The feedback joins the feedback of the metrics that are below 1. If one of the metrics is async, the weighted metric
    is async too. ``metrics``: the metrics by name. ``weights``: by name; equal by default.

    >>> both = {"short": dn.metrics.word_count(at_most=5), "blue": dn.metrics.contains(text="blue")}
    >>> metric = dn.metrics.weighted(both, {"short": 1, "blue": 3})
    >>> metric({}, {"sentence": "The ocean is wide."})
    Score(value=0.25, feedback="blue (0): sentence does not contain 'blue'.", parts={'short': 1.0, 'blue': 0.0})
    """
    return Weighted(metrics, weights)


def llm_judge(
    criteria: str,
    *,
    lm: LMProtocol | str | None = None,
    field: str | None = None,
    label: str | None = None,
    adapter: Adapter | str | None = None,
    name: str = "llm_judge",
    **settings: Any,
) -> Judge:
    """An async metric for which a model judges the prediction, with a score from 0 to 1.

    The model reads inputs, output and criteria. It writes its reasons, which are the feedback, before the score (LLM as
    a judge: Zheng et al. 2023; reasons before the score: G-Eval, Liu et al. 2023). The calls of the judge count in the
    budget, but are not in the trace of the program, and they have no hints or candidates.

    ``criteria``: what a good output is like. ``lm``: the model that judges; None uses that of ``dn.configure`` or
    ``dn.context``. ``field``: the output to judge; all of them by default. ``label``: a field of the row to show as a
    reference. ``adapter``: for the messages of the judge. ``name``: of the metric in tables. ``settings``: temperature
    and other settings of the requests.

    The metric raises RewardError if the reply has no score from 0 to 1.

    >>> judge = dn.FunctionLM(lambda request: "reasons: It names no colour.\\nscore: 0.2")
    >>> metric = dn.metrics.llm_judge("The sentence names a colour.", lm=judge)
    >>> dn.run_sync(lambda: metric({"subject": "the ocean"}, {"sentence": "It is wide."}))
    Score(value=0.2, feedback='It names no colour.', parts={})
    """
    from dspynb.evaluation.metrics.judge import Judge  # here, since the pydantic models in it are slow to import

    return Judge(criteria, lm=lm, field=field, label=label, adapter=adapter, name=name, settings=settings)
