"""Scores with words, from values: for use inside one's own metrics and rewards, and over tables (``score_table``).

These are the feedback helpers of the DSRs spike for GEPA: each returns a Score with the value (0 to 1), feedback that
says what to change, and named parts.

>>> def reward(row, prediction):
...     return dn.feedback.retrieval(prediction.documents, row.relevant)
>>> reward(dn.Example(relevant=["d1", "d2"]), dn.Prediction(documents=["d1"])).feedback
"Retrieved 1 of 2 relevant documents (precision 1.00, recall 0.50). Missed: 'd2'."
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import SequenceMatcher
from typing import Any

from dspynb.data import Score, as_score
from dspynb.errors import ConfigurationError, RewardError, nearest, shorten
from dspynb.evaluation.metrics.fields import is_missing, plain, plain_text, quoted, text_of

__all__ = ["classification", "code_pipeline", "multi_objective", "retrieval", "string_similarity"]

_SHOWN = 5
_LONG = 2000
"""Characters above which texts are compared by words: by characters the time grows with the square."""


def retrieval(
    retrieved: Iterable[Any], relevant: Iterable[Any], documents: Mapping[Any, str] | Collection[Any] | None = None
) -> Score:
    """F1 of the retrieved against the relevant documents; parts ``precision``, ``recall`` and ``f1``.

    Documents are ids or texts; one that is retrieved twice counts once. ``documents``: the collection, by id (then the
    feedback quotes what was missed) or as a list. Nothing relevant and nothing retrieved is 1.

    >>> dn.feedback.retrieval(["d1", "d7"], relevant=["d1", "d2"]).feedback
    "Retrieved 1 of 2 relevant documents (precision 0.50, recall 0.50). Missed: 'd2'. Not relevant: 'd7'."
    """
    got, due = _distinct(retrieved, "retrieved"), _distinct(relevant, "relevant")
    found, wanted = set(got), set(due)
    hits = found & wanted
    precision = len(hits) / len(got) if got else float(not due)
    recall = len(hits) / len(due) if due else float(not got)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    missed, wrong = [one for one in due if one not in found], [one for one in got if one not in wanted]
    of = f" of {len(documents)} documents" if documents is not None else ""
    notes = [
        f"Retrieved {len(hits)} of {len(due)} relevant documents (precision {precision:.2f}, recall {recall:.2f})."
    ]
    notes += [f"Missed{of}: {_documents(missed, documents)}."] * bool(missed)
    notes += [f"Not relevant: {_documents(wrong, documents)}."] * bool(wrong)
    return Score(f1, " ".join(notes), {"precision": precision, "recall": recall, "f1": f1})


def _distinct(values: Any, what: str) -> list[Any]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise RewardError(f"retrieval: {what} must be a list of documents, got {shorten(repr(values), 80)}")
    try:
        return list(dict.fromkeys(plain(list(values))))
    except TypeError:
        raise RewardError(f"retrieval: {what} must hold ids or texts, not lists or dicts") from None


def _documents(ids: list[Any], documents: Any) -> str:
    texts = documents if isinstance(documents, Mapping) else {}
    shown = [quoted(one) + (f" ({shorten(texts[one], 120)})" if one in texts else "") for one in ids[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")


def code_pipeline(stages: Mapping[str, Any]) -> Score:
    """The share of stages that passed; one part a stage (1 or 0); the feedback tells the first that failed.

    A stage, in order: True, False, ``(passed, message)``, an exception (failed with it), or None (not reached).

    >>> score = dn.feedback.code_pipeline({"parse": True, "run": ZeroDivisionError("division by zero"), "test": None})
    >>> score.feedback
    "Stage 'run' failed: ZeroDivisionError: division by zero. Passed before it: parse."
    """
    if not isinstance(stages, Mapping) or not stages:
        raise RewardError("code_pipeline: give the stages as a mapping of name to result, at least one")
    read = {name: _stage(name, result) for name, result in stages.items()}
    parts = {name: float(passed) for name, (passed, _) in read.items()}
    value = sum(parts.values()) / len(parts)
    failed = next((name for name, (passed, _) in read.items() if not passed), None)
    if failed is None:
        return Score(value, f"All {len(parts)} stages passed: {', '.join(parts)}.", parts)
    before = list(parts)[: list(parts).index(failed)]
    after = "was not reached" if stages[failed] is None else "failed"
    said = read[failed][1]
    message = (f": {said}" if said else "") + ("" if said.endswith((".", "!", "?")) else ".")
    told = f"Stage {failed!r} {after}{message}"
    return Score(value, told + (f" Passed before it: {', '.join(before)}." if before else ""), parts)


def _stage(name: str, result: Any) -> tuple[bool, str]:
    result = plain(result)
    if isinstance(result, list) and len(result) == 2:
        passed, message = result
    elif isinstance(result, BaseException):
        passed, message = False, f"{type(result).__name__}: {result}"
    else:
        passed, message = bool(result) if result is None else result, ""
    if not isinstance(passed, bool) or not isinstance(message, str | None):
        kind = shorten(repr(result), 80)
        raise RewardError(
            f"code_pipeline: stage {name!r} is {kind}; give True, False, (passed, message), an exception or None"
        )
    return passed, shorten(message or "", 600)


def multi_objective(scores: Mapping[str, Score | float | bool], weights: Mapping[str, float] | None = None) -> Score:
    """The weighted mean of named scores (equal weights by default); one part a score, and the parts of each as
    ``name.part``. The feedback joins that of the scores below 1, the heaviest loss first.

    >>> scores = {"right": 1.0, "brief": dn.Score(0.5, "10 words too many.")}
    >>> score = dn.feedback.multi_objective(scores, {"right": 3, "brief": 1})
    >>> score.value, score.feedback
    (0.875, 'brief (0.5): 10 words too many.')
    """
    if not isinstance(scores, Mapping) or not scores:
        raise RewardError("multi_objective: give the scores as a mapping of name to score, at least one")
    share, read = weights_of(scores, weights), {name: as_score(value) for name, value in scores.items()}
    value = sum(share[name] * score.value for name, score in read.items())
    parts = {name: score.value for name, score in read.items()}
    parts |= {f"{name}.{part}": v for name, score in read.items() for part, v in score.parts.items()}
    losses = sorted(
        (n for n in read if read[n].value < 1 and share[n] > 0), key=lambda n: share[n] * (read[n].value - 1)
    )
    notes = [f"{name} ({read[name].value:.2g}): {read[name].feedback or 'below 1'}" for name in losses]
    return Score(value, "\n".join(notes) or "All objectives are met.", parts)


def weights_of(names: Iterable[str], weights: Mapping[str, float] | None) -> dict[str, float]:
    """The weights by name, as shares of 1; equal where none are given. Raises ConfigurationError."""
    known = list(names)
    if weights is None:
        return {name: 1 / len(known) for name in known}
    for name in weights:
        if name not in known:
            raise ConfigurationError(f"weights: there is no objective {name!r}.{nearest(name, known)}")
    lacking = [name for name in known if name not in weights]
    if lacking:
        raise ConfigurationError(f"weights: {lacking[0]!r} has none; give one for each, 0 to leave it out")
    given = {name: plain(weights[name]) for name in known}
    if any(not isinstance(w, int | float) or not 0 <= w < float("inf") for w in given.values()) or not sum(
        given.values()
    ):
        raise ConfigurationError(f"weights must be numbers of at least 0, and not all 0, got {given}")
    return {name: w / sum(given.values()) for name, w in given.items()}


def string_similarity(predicted: Any, expected: Any, *, ignore_case: bool = False) -> Score:
    """The matching share of two texts, 2·M / T (Ratcliff and Obershelp 1988, as in Python's difflib).

    M counts the characters in matching blocks and T those of both texts; above 2,000 characters, words instead. The
    feedback shows the first difference.

    >>> dn.feedback.string_similarity("colour", "color").feedback
    "Similarity 0.91. Expected 'color', got 'colour'; first at character 5: 'u' is too much."
    """
    if is_missing(predicted) or is_missing(expected):
        raise RewardError(f"string_similarity: {'predicted' if is_missing(predicted) else 'expected'} is missing")
    given, wanted = text_of(plain(predicted)), text_of(plain(expected))
    left, right = (given.casefold(), wanted.casefold()) if ignore_case else (given, wanted)
    if left == right:
        return Score(1.0, "The texts are the same.")
    by_words = max(len(left), len(right)) > _LONG
    a, b, between = (left.split(), right.split(), " ") if by_words else (left, right, "")
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    _, i, end_a, j, end_b = next((op for op in matcher.get_opcodes() if op[0] != "equal"), ("equal", 0, 0, 0, 0))
    here, there = between.join(a[i:end_a]), between.join(b[j:end_b])
    change = f"{quoted(here, 60)} should be {quoted(there, 60)}" if here and there else ""
    change = change or (f"{quoted(there, 60)} is missing" if there else f"{quoted(here, 60)} is too much")
    at = f"{'word' if by_words else 'character'} {i + 1}"
    told = f"Similarity {matcher.ratio():.2f}. Expected {quoted(wanted)}, got {quoted(given)}; first at {at}: {change}."
    return Score(matcher.ratio(), told)


def classification(predicted: Any, expected: Any, confidence: float | None = None) -> Score:
    """1 for the right class, 0 for a wrong one; with a ``confidence`` (0 to 1), the mean of that and of the Brier score
    ``1 - (confidence - right)²`` (Brier 1950).

    So a right answer is worth 0.5 (no confidence) to 1 (full), a wrong one 0.5 (none) to 0 (full), and a true
    confidence is worth most on average. Parts: ``correct``, and ``brier`` with a confidence. Classes are compared
    without case and outer spaces.

    >>> score = dn.feedback.classification("sports", "science", confidence=0.9)
    >>> score.feedback
    "Wrong: 'sports', expected 'science', with confidence 0.90. Less confidence was due: look again at ..."
    """
    if is_missing(expected):
        raise RewardError(f"classification: the expected class is {expected!r}; leave such rows out")
    given, wanted = plain(predicted), plain(expected)
    right = not is_missing(given) and plain_text(text_of(given)) == plain_text(text_of(wanted))
    verdict = f"Right: {quoted(wanted)}" if right else f"Wrong: {quoted(given)}, expected {quoted(wanted)}"
    if confidence is None:
        return Score(float(right), f"{verdict}.", {"correct": float(right)})
    sure = _confidence(confidence)
    brier = 1 - (sure - right) ** 2
    told = f"{verdict}, with confidence {sure:.2f}. {_advice(right, sure)}".rstrip()
    return Score((right + brier) / 2, told, {"correct": float(right), "brier": brier})


def _confidence(value: Any) -> float:
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        raise RewardError(f"classification: confidence must be a number from 0 to 1, got {shorten(repr(value), 60)}")
    return float(number)


def _advice(right: bool, sure: float) -> str:
    if right:
        return "" if sure >= 0.5 else "More confidence was due."
    return (
        "Less confidence was due: look again at what tells the classes apart." if sure >= 0.5 else "The doubt was due."
    )
