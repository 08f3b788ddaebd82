"""Grammars for models that can be held to one: the text of a reply in the form of an adapter, with typed values.

The grammars are in GBNF, the notation of llama.cpp (its documentation: grammars/README.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, get_args, get_origin

from dspynb.signatures.fields import Field
from dspynb.signatures.kinds import choices_of, core_of
from dspynb.signatures.signature import Signature

__all__ = ["has_typed_outputs", "literal", "reply_grammar", "value_rule"]

_MOST_ITEMS = 10
"""Items of a list. Small models seldom end a list by themselves."""
_MOST_LISTED_NUMBERS = 200
"""Whole numbers between two limits that are written out as alternatives."""
_DIGITS = "[0-9]{1,15}"
_LINE = r"[^\n]{1,400}"
"""A text on one line. The length is that of a long paragraph."""
_NONE = ("None", "none", "null")
_TRUTHS = ("true", "false", "True", "False", "yes", "no", "Yes", "No")
_CONTAINERS = (list, tuple, set, frozenset, Sequence)


def literal(text: str) -> str:
    """A text as a terminal of a grammar."""
    return json.dumps(text, ensure_ascii=False)


@lru_cache(maxsize=1024)
def has_typed_outputs(signature: type[Signature]) -> bool:
    """Whether a grammar holds any output of the signature to its type."""
    return any(value_rule(field) is not None for field in signature.output_fields.values())


def value_rule(field: Field) -> str | None:
    """The rule for the text of a field's value: a choice in its usual spellings, a truth value, a number, or a short
    list of these. None for other types, and for text."""
    rule = _rule(field.core, field.schema)
    if rule is None or not field.takes_none:
        return rule
    return f"({rule} | {_alternatives(_NONE)})"


def _rule(core: Any, schema: Any, *, in_json: bool = False) -> str | None:
    choices = choices_of(core)
    if choices:
        return _choice_rule([written for written, _ in choices], in_json=in_json)
    if core is bool:
        return _alternatives(_TRUTHS[:2] if in_json else _TRUTHS)
    if core is int:
        return _whole_number_rule(schema)
    if core is float:
        return f'"-"? {_DIGITS} ("." {_DIGITS})?'
    if get_origin(core) in _CONTAINERS and not in_json:
        return _list_rule(core)
    return None


def _choice_rule(choices: Iterable[Any], *, in_json: bool) -> str:
    """Any of the choices: as written, or a text in lower case or with a capital, which is how models write them."""
    spellings: dict[str, None] = {}
    for choice in choices:
        if not isinstance(choice, str):
            spellings[json.dumps(choice, default=str)] = None
        elif in_json:
            spellings[json.dumps(choice, ensure_ascii=False)] = None
        else:
            spellings |= dict.fromkeys((choice, choice.lower(), choice[:1].upper() + choice[1:]))
    return _alternatives(spellings)


def _alternatives(texts: Iterable[str]) -> str:
    return f"({' | '.join(map(literal, texts))})"


def _whole_number_rule(schema: Any) -> str:
    numbers = schema if schema.get("type") == "integer" else {}
    low = numbers.get("minimum", numbers.get("exclusiveMinimum"))
    high = numbers.get("maximum", numbers.get("exclusiveMaximum"))
    if low is not None and high is not None and high - low <= _MOST_LISTED_NUMBERS:
        first = int(low) + ("minimum" not in numbers)
        last = int(high) - ("maximum" not in numbers)
        return _alternatives(map(str, range(first, last + 1)))
    sign = "" if low is not None and low >= 0 else '"-"? '
    return f"{sign}{_DIGITS}"


def _list_rule(core: Any) -> str | None:
    items = [item for item in get_args(core) if item is not ...]
    if len(items) != 1:
        return None
    item = core_of(items[0])
    rule = r'"\"" [^"\\\n]{1,100} "\""' if item is str else _rule(item, {}, in_json=True)
    if rule is None:
        return None
    return f'"[" ({rule} (", " {rule}){{0,{_MOST_ITEMS - 1}}})? "]"'


def reply_grammar(parts: Iterable[str | tuple[str, Field]], end: str = "") -> str:
    """The grammar of a reply that consists of fixed texts and of the values of fields, in order.

    ``parts``: a fixed text, or the name of a rule with a field. A field without a rule of its own is text on one line;
    the last one may have several lines. ``end``: the text after the last value.
    """
    rules: list[str] = []
    root: list[str] = []
    all_parts = list(parts)
    for number, part in enumerate(all_parts):
        if isinstance(part, str):
            root.append(literal(part))
            continue
        name, field = part
        rule = value_rule(field)
        if rule is None:
            is_last = number == len(all_parts) - 1 and not end
            rule = r"[^\x00]{1,4000}" if is_last else _LINE
        root.append(name)
        rules.append(f"{name} ::= {rule}")
    if end:
        root.append(literal(end))
    return "\n".join([f"root ::= {' '.join(root)}", *rules])
