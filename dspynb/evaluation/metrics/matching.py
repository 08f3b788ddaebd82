"""The comparisons behind the metrics: ``compare(field, given, wanted) -> Score``, each with its feedback."""

from __future__ import annotations

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator
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
_SIGN = r"(?:(?<![\w.])[-+])?"  # in 12-15 the hyphen is none
_NUMBER = re.compile(rf"{_SIGN}(?:(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
_FENCE = re.compile(r"^```[\w-]*\s*\n(.*?)\n?```$", re.DOTALL)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SHOWN = 5
"""Differences that feedback lists; the rest are counted."""


def compare_exactly(field: str, given: Any, wanted: Any, *, normalize: Normalize | None) -> Score:
    """1 if equal; a list of labels holds alternatives, unless the output is a list too."""
    alternatives = wanted if isinstance(wanted, list) and not isinstance(given, list) else [wanted]
    if any(_same(given, one, normalize) for one in alternatives):
        return Score(1.0, "Correct.")
    expected = " or ".join(quoted(one) for one in alternatives[:_SHOWN])
    return Score(0.0, f"{field} is {quoted(given)}; expected {expected}.")


def _same(given: Any, wanted: Any, normalize: Normalize | None) -> bool:
    if normalize is None:
        return type(given) is type(wanted) and bool(given == wanted)
    if isinstance(given, str) or isinstance(wanted, str):
        return normalize(text_of(given)) == normalize(text_of(wanted))
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(_same(a, b, normalize) for a, b in zip(given, wanted, strict=True))
    return bool(given == wanted)


def search_texts(field: str, given: Any, wanted: Any, *, ignore_case: bool, whole_words: bool) -> Score:
    """The share of the wanted texts that the output contains."""
    texts = [text_of(one) for one in (wanted if isinstance(wanted, list) else [wanted])]
    if not texts or not all(texts):
        raise RewardError("contains: there is no text to look for")
    body, flags = text_of(given), re.IGNORECASE if ignore_case else 0
    edge = (r"(?<!\w)", r"(?!\w)") if whole_words else ("", "")
    missing = [t for t in texts if not re.search(edge[0] + re.escape(t) + edge[1], body, flags)]
    if not missing:
        return Score(1.0, "Correct.")
    return Score(1 - len(missing) / len(texts), f"{field} does not contain {_listed([quoted(t) for t in missing])}.")


def squad_text(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016).

    >>> dn.metrics.squad_text("The Eiffel Tower!")
    'eiffel tower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def compare_tokens(field: str, given: Any, wanted: Any) -> Score:
    """The best token F1 over the references."""
    references = [text_of(one) for one in (wanted if isinstance(wanted, list) else [wanted])]
    if not references:
        raise RewardError("f1: the list of references is empty")
    found = [_token_f1(text_of(given), reference) for reference in references]
    best = max(range(len(found)), key=lambda i: found[i][0])
    (value, precision, recall), reference = found[best], references[best]
    parts = {"precision": precision, "recall": recall}
    if value == 1.0:
        return Score(1.0, "Correct.", parts)
    have, need = Counter(squad_text(text_of(given)).split()), Counter(squad_text(reference).split())
    lacking, extra = list((need - have).elements()), list((have - need).elements())
    notes = [f"missing: {_listed(lacking)}"] * bool(lacking) + [f"not in the reference: {_listed(extra)}"] * bool(extra)
    told = f"{field} is {quoted(given)}; the reference is {quoted(reference)} ({'; '.join(notes)})."
    return Score(value, told, parts)


def _token_f1(given: str, reference: str) -> tuple[float, float, float]:
    have, need = squad_text(given).split(), squad_text(reference).split()
    if not have or not need:  # as the official script: an empty answer is right only where none is wanted
        same = float(have == need)
        return same, same, same
    common = (Counter(have) & Counter(need)).total()
    if common == 0:
        return 0.0, 0.0, 0.0
    precision, recall = common / len(have), common / len(need)
    return 2 * precision * recall / (precision + recall), precision, recall


def number_of(value: Any) -> float | None:
    """A number, or the last number in a text (thousands separators allowed); None where there is none."""
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    numbers = _NUMBER.findall(value) if isinstance(value, str) else []
    return float(numbers[-1].replace(",", "")) if numbers else None


def compare_numbers(field: str, given: Any, wanted: Any, *, abs_tol: float, rel_tol: float) -> Score:
    """1 within the tolerance of the label."""
    target, number = number_of(wanted), number_of(given)
    if target is None or not math.isfinite(target):
        raise RewardError(f"numeric: the label {quoted(wanted)} is not a finite number")
    if number is None:
        return Score(0.0, f"{field} is {quoted(given)}, which holds no number; expected {target:g}.")
    off = abs(number - target)
    if number == target or off <= max(abs_tol, rel_tol * abs(target)):
        return Score(1.0, "Correct.")
    return Score(0.0, f"{field} is {number:.10g}; expected {target:.10g} (off by {off:.4g}).")


def match_pattern(field: str, given: Any, *, pattern: re.Pattern[str], full: bool, message: str | None) -> Score:
    """1 if the pattern matches."""
    text = text_of(given)
    if pattern.fullmatch(text) if full else pattern.search(text):
        return Score(1.0, "Correct.")
    part = "as a whole " if full else ""
    return Score(0.0, message or f"{field} does not {part}match the pattern {pattern.pattern!r}: {quoted(given)}.")


def compare_length(field: str, given: Any, *limit: Any, at_least: int | None, at_most: int | None) -> Score:
    """1 if the number of words is within the limits; the label, if any, is the largest number."""
    if limit:
        most = number_of(limit[0])
        if most is None or isinstance(limit[0], str | bool) or most < 0:
            raise RewardError(f"word_count: the label {quoted(limit[0])} is not a number of words")
        at_most = int(most)
    words = len(text_of(given).split())
    if at_most is not None and words > at_most:
        return Score(0.0, f"{field} has {words} words; use at most {at_most}.")
    if at_least is not None and words < at_least:
        return Score(0.0, f"{field} has {words} words; use at least {at_least}.")
    return Score(1.0, "Correct.")


def compare_json(field: str, given: Any, wanted: Any, *, partial: bool) -> Score:
    """1 if equal as JSON; text is read as JSON first."""
    try:
        target = _read_json(wanted) if isinstance(wanted, str) else wanted
    except (ValueError, RecursionError):
        raise RewardError(f"json_equal: the label {quoted(wanted)} is not JSON") from None
    try:
        value = _read_json(given) if isinstance(given, str) else given
    except (ValueError, RecursionError) as error:
        return Score(0.0, f"{field} is not JSON ({shorten(error, 100)}): {quoted(given)}.", {"equal_leaves": 0.0})
    try:
        differences, leaves = list(_differences(value, target, "$")), max(1, _leaves(target))
    except RecursionError:
        return Score(0.0, f"{field} is nested too deeply to be compared.", {"equal_leaves": 0.0})
    share = max(0.0, 1 - sum(weight for weight, _ in differences) / leaves)
    if not differences:
        return Score(1.0, "Correct.", {"equal_leaves": 1.0})
    told = f"{field} differs: " + _listed([text for _, text in differences], "; ") + "."
    return Score(share if partial else 0.0, told, {"equal_leaves": share})


def _read_json(text: str) -> Any:
    match = _FENCE.match(text.strip())
    return json.loads(match.group(1) if match else text)


def _differences(given: Any, wanted: Any, path: str) -> Iterator[tuple[int, str]]:
    """Each path that differs, with how many leaves that concerns."""
    if isinstance(given, dict) and isinstance(wanted, dict):
        for key in {**wanted, **given}:
            at = f"{path}.{key}" if str(key).isidentifier() else f"{path}[{key!r}]"
            yield from _member(key in given, key in wanted, given.get(key), wanted.get(key), at)
    elif isinstance(given, list) and isinstance(wanted, list):
        for i in range(max(len(given), len(wanted))):
            there, due = i < len(given), i < len(wanted)
            yield from _member(there, due, given[i] if there else None, wanted[i] if due else None, f"{path}[{i}]")
    elif isinstance(given, bool) != isinstance(wanted, bool) or given != wanted:
        yield max(1, _leaves(wanted)), f"{path} is {quoted(given, 60)}, expected {quoted(wanted, 60)}"


def _member(there: bool, due: bool, given: Any, wanted: Any, path: str) -> Iterator[tuple[int, str]]:
    if not due:
        yield max(1, _leaves(given)), f"{path} is not expected"
    elif not there:
        yield max(1, _leaves(wanted)), f"{path} is missing, expected {quoted(wanted, 60)}"
    else:
        yield from _differences(given, wanted, path)


def _leaves(value: Any) -> int:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 1 if members is None else sum(map(_leaves, members))


def _listed(items: list[str], between: str = ", ") -> str:
    more = f"{between}and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return between.join(items[:_SHOWN]) + more
