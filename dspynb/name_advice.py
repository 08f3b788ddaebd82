"""Advice for unknown keywords: known names that are spelled alike, and the names of other libraries such as DSPy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from dspynb.errors import ConfigurationError

__all__ = ["refuse_unknown", "unknown_name_problems"]

_SHORT_NAME = 3
"""Up to so many letters a name is short: nearly every other short name shares half of its letters."""
_CUTOFF = 0.5
_CUTOFF_OF_SHORT_NAMES = 0.7
_CUTOFF_OF_ADVICE = 0.85


def refuse_unknown(
    owner: str,
    names: Iterable[str],
    known: Collection[str],
    renamed: Mapping[str, str] | None = None,
    otherwise: str = "",
) -> None:
    """Raise ConfigurationError if some of ``names`` are not ``known``.

    ``owner``: the class or function, as the error calls it. ``renamed``: for names of DSPy, litellm or OpenAI, the
    known name of the same meaning, or a sentence that says what to do. ``otherwise``: what to do for a name that is not
    in ``renamed``, with ``{name}`` for the unknown name.
    """
    problems = unknown_name_problems(owner, names, known, renamed or {}, otherwise)
    if problems:
        raise ConfigurationError(" ".join(problems))


def unknown_name_problems(
    owner: str, names: Iterable[str], known: Collection[str], renamed: Mapping[str, str], otherwise: str
) -> list[str]:
    """A sentence for each of ``names`` that is not ``known``, with advice; see ``refuse_unknown``."""
    unknown = sorted(set(names).difference(known))
    problems = [f"{owner} has no setting {name!r}{_advice(name, known, renamed)}" for name in unknown]
    not_renamed = [name for name in unknown if name not in renamed]
    if not_renamed and otherwise:
        problems.append(otherwise.format(name=not_renamed[0]))
    return problems


def _advice(name: str, known: Collection[str], renamed: Mapping[str, str]) -> str:
    """The end of the sentence: the known name that was probably meant, or what to do instead, or a full stop."""
    meant = _meant_name(name, known, renamed)
    replacement = meant if meant in known else renamed.get(meant, "")
    if replacement in known:
        return f". Did you mean {replacement!r}?"
    if " " in replacement:
        return f": {replacement}."
    return "."


def _meant_name(name: str, known: Collection[str], renamed: Mapping[str, str]) -> str:
    """The known or renamed name that an unknown name is, or is a misspelling of; empty if there is none."""
    if name in renamed:
        return name
    renamed_to_known = {other for other, replacement in renamed.items() if replacement in known}
    names = {*known, *renamed_to_known}
    with_sentence = sorted(set(renamed) - names)
    close = get_close_matches(name, with_sentence, n=1, cutoff=_CUTOFF_OF_ADVICE)
    if close:
        return close[0]
    for other in sorted(names):
        if sorted(other) == sorted(name):  # the same letters in another order
            return other
    cutoff = _CUTOFF if len(name) > _SHORT_NAME else _CUTOFF_OF_SHORT_NAMES
    close = get_close_matches(name, sorted(names), n=1, cutoff=cutoff)
    return close[0] if close else ""
