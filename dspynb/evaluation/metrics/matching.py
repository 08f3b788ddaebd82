"""The comparisons that metrics make: ``compare(field, output, label) -> Score``, each with feedback."""

from __future__ import annotations

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

from dspynb.data import Score
from dspynb.errors import RewardError, shorten
from dspynb.evaluation.metrics.fields import quoted, text_of

__all__ = [
    "compare_exactly",
    "compare_json",
    "compare_length",
    "compare_numbers",
    "compare_tokens",
    "match_pattern",
    "search_texts",
    "squad_text",
]

Normalize = Callable[[str], str]
_SIGN = r"(?:(?<![\w.])[-+])?"  # the hyphen in 12-15 is no sign
_NUMBER = re.compile(rf"{_SIGN}(?:(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
_FENCE = re.compile(r"^```[\w-]*\s*\n(.*?)\n?```$", re.DOTALL)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LIST_LIMIT = 5
"""How many differences feedback lists. The others are counted."""
_MISSING = object()


def compare_exactly(field: str, output: Any, label: Any, *, normalize: Normalize | None) -> Score:
    """1 if output and label are equal, else 0. A list of labels holds alternatives, unless the output is a list too."""
    has_alternatives = isinstance(label, list) and not isinstance(output, list)
    alternatives = label if has_alternatives else [label]
    if any(_are_equal(output, alternative, normalize) for alternative in alternatives):
        return Score(1.0, "Correct.")
    expected = " or ".join(quoted(alternative) for alternative in alternatives[:_LIST_LIMIT])
    return Score(0.0, f"{field} is {quoted(output)}; expected {expected}.")


def _are_equal(output: object, label: object, normalize: Normalize | None) -> bool:
    if normalize is None:
        return type(output) is type(label) and bool(output == label)
    if isinstance(output, str) or isinstance(label, str):
        return normalize(text_of(output)) == normalize(text_of(label))
    if isinstance(output, list) and isinstance(label, list):
        if len(output) != len(label):
            return False
        return all(_are_equal(item, expected, normalize) for item, expected in zip(output, label, strict=True))
    return bool(output == label)


def _as_texts(label: object) -> list[str]:
    if isinstance(label, list):
        return [text_of(item) for item in label]
    return [text_of(label)]


def search_texts(field: str, output: object, expected: object, *, ignore_case: bool, whole_words: bool) -> Score:
    """The share of the expected texts that the output contains. ``expected``: a text, or a list of texts."""
    texts = _as_texts(expected)
    if not texts or not all(texts):
        raise RewardError("contains: there is no text to look for")
    output_text = text_of(output)
    flags = re.IGNORECASE if ignore_case else 0
    missing = []
    for text in texts:
        pattern = re.escape(text)
        if whole_words:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        if not re.search(pattern, output_text, flags):
            missing.append(quoted(text))
    if not missing:
        return Score(1.0, "Correct.")
    return Score(1 - len(missing) / len(texts), f"{field} does not contain {_listing(missing)}.")


def squad_text(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016).

    >>> dn.metrics.squad_text("The Eiffel Tower!")
    'eiffel tower'
    """
    lower_case = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", lower_case).split())


def compare_tokens(field: str, output: object, label: object) -> Score:
    """The token F1 of the output with the reference that it matches best. A list of labels holds several references."""
    references = _as_texts(label)
    if not references:
        raise RewardError("f1: the list of references is empty")
    text = text_of(output)
    scores = [_token_f1(text, reference) for reference in references]
    best = max(range(len(scores)), key=lambda number: scores[number][0])
    f1, precision, recall = scores[best]
    parts = {"precision": precision, "recall": recall}
    if f1 == 1.0:
        return Score(1.0, "Correct.", parts)
    notes = _token_notes(text, references[best])
    feedback = f"{field} is {quoted(output)}; the reference is {quoted(references[best])} ({'; '.join(notes)})."
    return Score(f1, feedback, parts)


def _token_notes(text: str, reference: str) -> list[str]:
    """Which tokens of the reference the text lacks, and which it has in excess."""
    tokens = Counter(squad_text(text).split())
    expected = Counter(squad_text(reference).split())
    missing = list((expected - tokens).elements())
    extra = list((tokens - expected).elements())
    notes = []
    if missing:
        notes.append(f"missing: {_listing(missing)}")
    if extra:
        notes.append(f"not in the reference: {_listing(extra)}")
    return notes


def _token_f1(text: str, reference: str) -> tuple[float, float, float]:
    """F1, precision and recall."""
    tokens = squad_text(text).split()
    expected = squad_text(reference).split()
    if not tokens or not expected:  # as in the official script: an empty answer is right only if the reference is empty
        same = float(tokens == expected)
        return same, same, same
    common = (Counter(tokens) & Counter(expected)).total()
    if common == 0:
        return 0.0, 0.0, 0.0
    precision = common / len(tokens)
    recall = common / len(expected)
    return 2 * precision * recall / (precision + recall), precision, recall


def number_of(value: object) -> float | None:
    """A number, or the last number in a text (thousands separators allowed); None if there is none."""
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if not isinstance(value, str):
        return None
    numbers = _NUMBER.findall(value)
    if not numbers:
        return None
    return float(numbers[-1].replace(",", ""))


def compare_numbers(field: str, output: object, label: object, *, abs_tol: float, rel_tol: float) -> Score:
    """1 if the number in the output is within the tolerances of the label, else 0."""
    target = number_of(label)
    number = number_of(output)
    if target is None or not math.isfinite(target):
        raise RewardError(f"numeric: the label {quoted(label)} is not a finite number")
    if number is None:
        return Score(0.0, f"{field} is {quoted(output)}, which holds no number; expected {target:g}.")
    error = abs(number - target)
    if number == target or error <= max(abs_tol, rel_tol * abs(target)):
        return Score(1.0, "Correct.")
    return Score(0.0, f"{field} is {number:.10g}; expected {target:.10g} (off by {error:.4g}).")


def match_pattern(field: str, output: object, *, pattern: re.Pattern[str], full: bool, message: str | None) -> Score:
    """1 if the pattern matches somewhere in the output, or with ``full`` all of it; else 0."""
    text = text_of(output)
    match = pattern.fullmatch(text) if full else pattern.search(text)
    if match:
        return Score(1.0, "Correct.")
    part = "as a whole " if full else ""
    return Score(0.0, message or f"{field} does not {part}match the pattern {pattern.pattern!r}: {quoted(output)}.")


def compare_length(field: str, output: object, *label: object, at_least: int | None, at_most: int | None) -> Score:
    """1 if the number of words is within the limits, else 0. ``label``: the largest number, in place of ``at_most``."""
    if label:
        limit = number_of(label[0])
        if limit is None or isinstance(label[0], str | bool) or limit < 0:
            raise RewardError(f"word_count: the label {quoted(label[0])} is not a number of words")
        at_most = int(limit)
    words = len(text_of(output).split())
    if at_most is not None and words > at_most:
        return Score(0.0, f"{field} has {words} words; use at most {at_most}.")
    if at_least is not None and words < at_least:
        return Score(0.0, f"{field} has {words} words; use at least {at_least}.")
    return Score(1.0, "Correct.")


def compare_json(field: str, output: object, label: object, *, partial: bool) -> Score:
    """1 if output and label are the same JSON, else 0 or, with ``partial``, the share of equal leaves.

    Text is parsed as JSON.
    """
    try:
        expected = _as_json(label)
    except (ValueError, RecursionError):
        raise RewardError(f"json_equal: the label {quoted(label)} is not JSON") from None
    try:
        value = _as_json(output)
    except (ValueError, RecursionError) as error:
        return Score(0.0, f"{field} is not JSON ({shorten(error, 100)}): {quoted(output)}.", {"equal_leaves": 0.0})
    try:
        differences = list(_differences(value, expected, "$"))
        leaves = max(1, _count_leaves(expected))
    except RecursionError:
        return Score(0.0, f"{field} is nested too deeply to be compared.", {"equal_leaves": 0.0})
    if not differences:
        return Score(1.0, "Correct.", {"equal_leaves": 1.0})
    different_leaves = sum(count for count, _ in differences)
    equal_share = max(0.0, 1 - different_leaves / leaves)
    feedback = f"{field} differs: {_listing([text for _, text in differences], '; ')}."
    return Score(equal_share if partial else 0.0, feedback, {"equal_leaves": equal_share})


def _as_json(value: object) -> Any:
    """Parse a value if it is text. The JSON may stand in a Markdown code block."""
    if not isinstance(value, str):
        return value
    match = _FENCE.match(value.strip())
    return json.loads(match.group(1) if match else value)


def _differences(output: object, label: object, path: str) -> Iterator[tuple[int, str]]:
    """For each path at which the values differ: the number of leaves below it, and a description."""
    if isinstance(output, dict) and isinstance(label, dict):
        for key in {**label, **output}:
            key_path = f"{path}.{key}" if str(key).isidentifier() else f"{path}[{key!r}]"
            yield from _member_differences(output.get(key, _MISSING), label.get(key, _MISSING), key_path)
    elif isinstance(output, list) and isinstance(label, list):
        for index, (item, expected) in enumerate(zip_longest(output, label, fillvalue=_MISSING)):
            yield from _member_differences(item, expected, f"{path}[{index}]")
    elif isinstance(output, bool) != isinstance(label, bool) or output != label:
        yield max(1, _count_leaves(label)), f"{path} is {quoted(output, 60)}, expected {quoted(label, 60)}"


def _member_differences(output: object, label: object, path: str) -> Iterator[tuple[int, str]]:
    """The differences between two members of dicts or lists. One that does not exist is ``_MISSING``."""
    if label is _MISSING:
        yield max(1, _count_leaves(output)), f"{path} is not expected"
    elif output is _MISSING:
        yield max(1, _count_leaves(label)), f"{path} is missing, expected {quoted(label, 60)}"
    else:
        yield from _differences(output, label, path)


def _count_leaves(value: object) -> int:
    if isinstance(value, dict):
        return sum(map(_count_leaves, value.values()))
    if isinstance(value, list):
        return sum(map(_count_leaves, value))
    return 1


def _listing(items: list[str], separator: str = ", ") -> str:
    """The first items, and how many more there are."""
    text = separator.join(items[:_LIST_LIMIT])
    if len(items) > _LIST_LIMIT:
        text += f"{separator}and {len(items) - _LIST_LIMIT} more"
    return text
