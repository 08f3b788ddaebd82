"""Functions that score values, for use in your own metrics and rewards, and with ``score_table``.

Each returns a Score with a value from 0 to 1, feedback that says what to change, and named parts. They follow the
feedback helpers of the DSRs spike for GEPA.

>>> def reward(row, prediction):
...     return dn.feedback.retrieval(prediction.documents, row.relevant)
>>> reward(dn.Example(relevant=["d1", "d2"]), dn.Prediction(documents=["d1"])).feedback
"Retrieved 1 of 2 relevant documents (precision 1.00, recall 0.50). Missed: 'd2'."
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from dspynb.data import Score, as_score
from dspynb.errors import ConfigurationError, RewardError, nearest, shorten
from dspynb.evaluation.metrics.fields import plain, plain_text, quoted, text_of
from dspynb.missing import is_missing

__all__ = ["classification", "code_pipeline", "multi_objective", "retrieval", "string_similarity"]

_LIST_LIMIT = 5
"""How many documents feedback lists. The others are counted."""
_CHARACTER_LIMIT = 2000
"""Texts with more characters are compared by words, since the time grows with the square of the length."""


def retrieval(
    retrieved: Iterable[Any], relevant: Iterable[Any], documents: Mapping[Any, str] | Collection[Any] | None = None
) -> Score:
    """F1 of the retrieved documents against the relevant ones. Parts: ``precision``, ``recall``, ``f1``.

    ``retrieved``, ``relevant``: ids or texts; duplicates count once. If both are empty, the score is 1. ``documents``:
    the collection that was searched, as a list of ids or as texts by id. From texts, the feedback quotes documents.
    Raises RewardError for arguments that are not lists of ids or texts.

    >>> dn.feedback.retrieval(["d1", "d7"], relevant=["d1", "d2"]).feedback
    "Retrieved 1 of 2 relevant documents (precision 0.50, recall 0.50). Missed: 'd2'. Not relevant: 'd7'."
    """
    retrieved_ids = _distinct(retrieved, "retrieved")
    relevant_ids = _distinct(relevant, "relevant")
    hits = set(retrieved_ids) & set(relevant_ids)
    if retrieved_ids and relevant_ids:
        precision = len(hits) / len(retrieved_ids)
        recall = len(hits) / len(relevant_ids)
    else:
        both_empty = not retrieved_ids and not relevant_ids
        precision = recall = float(both_empty)
    f1 = 0.0
    if precision + recall:
        f1 = 2 * precision * recall / (precision + recall)
    missed = [document for document in relevant_ids if document not in hits]
    irrelevant = [document for document in retrieved_ids if document not in hits]
    notes = [
        f"Retrieved {len(hits)} of {len(relevant_ids)} relevant documents "
        f"(precision {precision:.2f}, recall {recall:.2f})."
    ]
    if missed:
        collection = "" if documents is None else f" of {len(documents)} documents"
        notes.append(f"Missed{collection}: {_listing(missed, documents)}.")
    if irrelevant:
        notes.append(f"Not relevant: {_listing(irrelevant, documents)}.")
    return Score(f1, " ".join(notes), {"precision": precision, "recall": recall, "f1": f1})


def _distinct(values: object, parameter: str) -> list[Any]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise RewardError(f"retrieval: {parameter} must be a list of documents, got {shorten(repr(values), 80)}")
    try:
        return list(dict.fromkeys(plain(list(values))))
    except TypeError:
        raise RewardError(f"retrieval: {parameter} must hold ids or texts, not lists or dicts") from None


def _listing(ids: list[Any], documents: object) -> str:
    """The first documents, each with the beginning of its text if that is known, and how many more there are."""
    texts = documents if isinstance(documents, Mapping) else {}
    items = []
    for document in ids[:_LIST_LIMIT]:
        item = quoted(document)
        if document in texts:
            item += f" ({shorten(texts[document], 120)})"
        items.append(item)
    text = ", ".join(items)
    if len(ids) > _LIST_LIMIT:
        text += f" and {len(ids) - _LIST_LIMIT} more"
    return text


def code_pipeline(stages: Mapping[str, Any]) -> Score:
    """The share of stages that passed. The Score has a part for each stage (1 or 0).

    The feedback describes the first stage that failed. ``stages``: the result of each stage by its name, in order. A
    result is True, False, ``(passed, message)``, an exception if the stage failed with it, or None if the stage was not
    reached. Raises RewardError for other results, and if there is no stage.

    >>> score = dn.feedback.code_pipeline({"parse": True, "run": ZeroDivisionError("division by zero"), "test": None})
    >>> score.feedback
    "Stage 'run' failed: ZeroDivisionError: division by zero. Passed before it: parse."
    """
    if not isinstance(stages, Mapping) or not stages:
        raise RewardError("code_pipeline: give the stages as a mapping of name to result, at least one")
    outcomes = {name: _outcome(name, result) for name, result in stages.items()}
    parts = {name: float(passed) for name, (passed, _) in outcomes.items()}
    value = sum(parts.values()) / len(parts)
    earlier: list[str] = []
    for name, (passed, message) in outcomes.items():
        if not passed:
            problem = "was not reached" if stages[name] is None else "failed"
            return Score(value, _failure_text(name, problem, message, earlier), parts)
        earlier.append(name)
    return Score(value, f"All {len(parts)} stages passed: {', '.join(parts)}.", parts)


def _failure_text(name: str, problem: str, message: str, earlier: list[str]) -> str:
    text = f"Stage {name!r} {problem}"
    if message:
        text += f": {message}"
    if not message.endswith((".", "!", "?")):
        text += "."
    if earlier:
        text += f" Passed before it: {', '.join(earlier)}."
    return text


def _outcome(name: str, result: object) -> tuple[bool, str]:
    """Whether a stage passed, and its message."""
    result = plain(result)
    message = ""
    if isinstance(result, list) and len(result) == 2:
        passed, message = result
    elif isinstance(result, BaseException):
        passed = False
        message = f"{type(result).__name__}: {result}"
    elif result is None:
        passed = False
    else:
        passed = result
    if not isinstance(passed, bool) or not isinstance(message, str | None):
        received = shorten(repr(result), 80)
        raise RewardError(
            f"code_pipeline: stage {name!r} is {received}; give True, False, (passed, message), an exception or None"
        )
    return passed, shorten(message or "", 600)


def multi_objective(scores: Mapping[str, Score | float | bool], weights: Mapping[str, float] | None = None) -> Score:
    """The weighted mean of several scores.

    The Score has a part for each of them, and their own parts as ``name.part``. The feedback joins the feedback of the
    scores below 1; the one that costs the mean most comes first. ``scores``: by name. ``weights``: by name; equal by
    default. Raises RewardError if there is no score, and ConfigurationError for weights that do not fit.

    >>> scores = {"right": 1.0, "brief": dn.Score(0.5, "10 words too many.")}
    >>> score = dn.feedback.multi_objective(scores, {"right": 3, "brief": 1})
    >>> score.value, score.feedback
    (0.875, 'brief (0.5): 10 words too many.')
    """
    if not isinstance(scores, Mapping) or not scores:
        raise RewardError("multi_objective: give the scores as a mapping of name to score, at least one")
    shares = weights_of(scores, weights)
    objectives = {name: as_score(value) for name, value in scores.items()}
    mean = sum(shares[name] * score.value for name, score in objectives.items())
    parts = {name: score.value for name, score in objectives.items()}
    for name, score in objectives.items():
        for part, value in score.parts.items():
            parts[f"{name}.{part}"] = value
    losses = [name for name, score in objectives.items() if score.value < 1 and shares[name] > 0]
    losses.sort(key=lambda name: shares[name] * (objectives[name].value - 1))
    notes = []
    for name in losses:
        score = objectives[name]
        notes.append(f"{name} ({score.value:.2g}): {score.feedback or 'below 1'}")
    return Score(mean, "\n".join(notes) or "All objectives are met.", parts)


def weights_of(names: Iterable[str], weights: Mapping[str, float] | None) -> dict[str, float]:
    """The weight of each name as a share of 1; equal shares for None.

    Raises ConfigurationError if a weight is missing, has an unknown name or is negative, or if all are 0.
    """
    known = list(names)
    if weights is None:
        return {name: 1 / len(known) for name in known}
    for name in weights:
        if name not in known:
            raise ConfigurationError(f"weights: there is no objective {name!r}.{nearest(name, known)}")
    numbers = {}
    for name in known:
        if name not in weights:
            raise ConfigurationError(f"weights: {name!r} has none; give one for each, 0 to leave it out")
        numbers[name] = plain(weights[name])
    are_valid = all(isinstance(weight, int | float) and 0 <= weight < float("inf") for weight in numbers.values())
    if not are_valid or not sum(numbers.values()):
        raise ConfigurationError(f"weights must be numbers of at least 0, and not all 0, got {numbers}")
    total = sum(numbers.values())
    return {name: weight / total for name, weight in numbers.items()}


def string_similarity(predicted: object, expected: object, *, ignore_case: bool = False) -> Score:
    """How similar two texts are, as 2·M / T (Ratcliff and Obershelp 1988, as in Python's difflib).

    M is the number of characters in matching blocks, and T that of both texts together. For texts above 2,000
    characters, words are counted instead. The feedback shows the first difference. ``predicted``, ``expected``: the
    texts. ``ignore_case``: False by default. Raises RewardError if one of them is missing.

    >>> dn.feedback.string_similarity("colour", "color").feedback
    "Similarity 0.91. Expected 'color', got 'colour'; first at character 5: 'u' is too much."
    """
    if is_missing(predicted):
        raise RewardError("string_similarity: predicted is missing")
    if is_missing(expected):
        raise RewardError("string_similarity: expected is missing")
    text = text_of(plain(predicted))
    expected_text = text_of(plain(expected))
    compared = text.casefold() if ignore_case else text
    expected_compared = expected_text.casefold() if ignore_case else expected_text
    if compared == expected_compared:
        return Score(1.0, "The texts are the same.")
    if max(len(compared), len(expected_compared)) > _CHARACTER_LIMIT:
        similarity, difference = _compare_sequences(compared.split(), expected_compared.split(), "word", " ")
    else:
        similarity, difference = _compare_sequences(compared, expected_compared, "character", "")
    return Score(
        similarity,
        f"Similarity {similarity:.2f}. Expected {quoted(expected_text)}, got {quoted(text)}; first at {difference}.",
    )


def _compare_sequences(a: Sequence[str], b: Sequence[str], unit: str, separator: str) -> tuple[float, str]:
    """The similarity of two texts as characters or words, and a description of the first difference."""
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    start_a = end_a = start_b = end_b = 0
    for operation, *bounds in matcher.get_opcodes():
        if operation != "equal":
            start_a, end_a, start_b, end_b = bounds
            break
    predicted = separator.join(a[start_a:end_a])
    expected = separator.join(b[start_b:end_b])
    if predicted and expected:
        change = f"{quoted(predicted, 60)} should be {quoted(expected, 60)}"
    elif expected:
        change = f"{quoted(expected, 60)} is missing"
    else:
        change = f"{quoted(predicted, 60)} is too much"
    return matcher.ratio(), f"{unit} {start_a + 1}: {change}"


def classification(predicted: object, expected: object, confidence: float | None = None) -> Score:
    """1 if the predicted class is the expected one, else 0. Classes are compared without case and outer spaces.

    With a ``confidence`` from 0 to 1, the value is the mean of that and of the Brier score
    ``1 - (confidence - correct)²`` (Brier 1950). A right answer then counts 0.5 (confidence 0) to 1 (confidence 1), and
    a wrong one 0.5 (confidence 0) to 0 (confidence 1). On average, the true confidence gives the highest value.

    Parts: ``correct``, and ``brier`` with a confidence. Raises RewardError if the expected class is missing, or for a
    confidence outside 0 to 1.

    >>> score = dn.feedback.classification("sports", "science", confidence=0.9)
    >>> score.feedback
    "Wrong: 'sports', expected 'science', with confidence 0.90. Less confidence was due: look again at ..."
    """
    if is_missing(expected):
        raise RewardError(f"classification: the expected class is {expected!r}; leave such rows out")
    label = plain(predicted)
    expected_label = plain(expected)
    correct = not is_missing(label) and plain_text(text_of(label)) == plain_text(text_of(expected_label))
    if correct:
        verdict = f"Right: {quoted(expected_label)}"
    else:
        verdict = f"Wrong: {quoted(label)}, expected {quoted(expected_label)}"
    if confidence is None:
        return Score(float(correct), f"{verdict}.", {"correct": float(correct)})
    probability = _probability(confidence)
    brier = 1 - (probability - correct) ** 2
    feedback = f"{verdict}, with confidence {probability:.2f}. {_confidence_advice(correct, probability)}".rstrip()
    return Score((correct + brier) / 2, feedback, {"correct": float(correct), "brier": brier})


def _probability(value: object) -> float:
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        raise RewardError(f"classification: confidence must be a number from 0 to 1, got {shorten(repr(value), 60)}")
    return float(number)


def _confidence_advice(correct: bool, confidence: float) -> str:
    is_confident = confidence >= 0.5
    if correct and is_confident:
        return ""
    if correct:
        return "More confidence was due."
    if is_confident:
        return "Less confidence was due: look again at what tells the classes apart."
    return "The doubt was due."
