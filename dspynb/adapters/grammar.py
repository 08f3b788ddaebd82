"""Grammars for models that can be held to one: the text of a reply in the form of an adapter, with typed values.

The grammars are in GBNF, the notation of llama.cpp (its documentation: grammars/README.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from dspynb.adapters.number_grammar import number_rule
from dspynb.adapters.values import parse_value
from dspynb.errors import ParseError
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["cut_outputs", "form_grammar", "has_typed_outputs", "literal", "reply_grammar", "value_rule"]

_MOST_ITEMS = 10
"""Items of a list. Small models seldom end a list by themselves."""
_MOST_CHARACTERS = 400
"""Characters of a text beside a typed output: those of a long paragraph."""
_MOST_ITEM_CHARACTERS = 100
_MOST_REPETITIONS = 2000
"""llama.cpp takes no more repetitions of a rule. The limits of a field apply up to this number."""
_FIRST_CHARACTER = r"[^\x00-\x20\x7F-\xA0\[<>#*_`\\\u1680\u2000-\u200F\u2028\u2029\u202F\u205F\u2060\u25C1\u3000\uFEFF]"
"""A text does not begin like a marker, a label, a fence or a tag of thinking, which adapters read as the form."""
_FURTHER_CHARACTER = r"[^\x00-\x1F\x7F-\x9F\u2028\u2029]"
_JSON_CHARACTER = r'([^"\\\x00-\x1F\x7F] | "\\" ["\\/nt])'
_FREE_LINE = r"[^\n]+"
_FREE_TEXT = r"[^\x00]+"
_NONE = ("None", "none", "null")
_TRUTHS = ("true", "false", "True", "False", "yes", "no", "Yes", "No")
_CONTAINERS = (list, tuple, set, frozenset, Sequence)
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CONTROL = re.compile(r'["\\\x00-\x1f\x7f]')


def literal(text: str) -> str:
    """A text as a terminal of a grammar."""
    return f'"{_CONTROL.sub(_escaped, text)}"'


def _escaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[0], f"\\x{ord(match[0]):02X}")


@lru_cache(maxsize=1024)
def has_typed_outputs(signature: type[Signature]) -> bool:
    """Whether a grammar holds any output of the signature to its type."""
    return any(value_rule(field) is not None for field in signature.output_fields.values())


def value_rule(field: Field) -> str | None:
    """The rule for the text of a field's value: a choice in its usual spellings, a truth value, a number, or a short
    list of these. None for other types, and for text."""
    rule = _typed_rule(field)
    if rule is None or not field.takes_none:
        return rule
    return f"({rule} | {_alternatives(_NONE)})"


def _typed_rule(field: Field) -> str | None:
    if field.choices:
        return _choice_rule(field)
    if field.core is bool:
        return _readable(field, [(spelling, spelling.lower() in ("true", "yes")) for spelling in _TRUTHS])
    rule = _number_or_list_rule(field)
    if rule is not None and field.core is float:
        # Without a full stop, the model that writes one after a whole number has to go on with decimals.
        whole = number_rule(_value_schema(field), is_whole=True)
        return rule if whole is None else f'({rule} | {whole} ".")'
    return rule


def _number_or_list_rule(field: Field) -> str | None:
    if field.core is int or field.core is float:
        return number_rule(_value_schema(field), is_whole=field.core is int)
    if get_origin(field.core) in _CONTAINERS:
        return _list_rule(field)
    return None


def _value_schema(field: Field) -> Mapping[str, Any]:
    """The JSON schema of the field's value where it is not None."""
    alternatives = [part for part in field.schema.get("anyOf", ()) if part.get("type") != "null"]
    schema: Mapping[str, Any] = alternatives[0] if len(alternatives) == 1 else field.schema
    return schema


def _alternatives(texts: Iterable[str]) -> str:
    return f"({' | '.join(map(literal, texts))})"


def _choice_rule(field: Field) -> str | None:
    """Any of the choices: as written, or a text in lower case or with a capital, which is how models write them.

    A member of an enum may be in quotes, as in demos, and have its name if its value is no text.
    """
    spellings: list[tuple[str, Any]] = []
    for written, choice in field.choices:
        texts: tuple[str, ...] = (json.dumps(written, ensure_ascii=False, default=str),)
        if isinstance(written, str):
            texts = (*_cases(written), *texts) if isinstance(choice, Enum) else _cases(written)
        elif isinstance(choice, Enum):
            texts = (*texts, *_cases(choice.name))
        spellings += [(text, choice) for text in texts]
    return _readable(field, spellings)


def _cases(text: str) -> tuple[str, ...]:
    if not text.strip():
        return (json.dumps(text),)
    return text, text.lower(), text[:1].upper() + text[1:], text.capitalize()


def _readable(field: Field, spellings: Iterable[tuple[str, Any]]) -> str | None:
    """The rule for those spellings that are read as their values. None if there are none."""
    texts: dict[str, None] = {}
    for spelling, value in spellings:
        try:
            is_read = parse_value(field, spelling, spelling) == value
        except ParseError:
            continue
        if is_read:
            texts[spelling] = None
    return _alternatives(texts) if texts else None


def _list_rule(field: Field) -> str | None:
    """A list in JSON on one line: of any length up to the limit, or with an item of its own type at each position."""
    items = get_args(field.core)
    if get_origin(field.core) is tuple and ... not in items:
        rules = [_json_rule(_item_field(item), _MOST_ITEM_CHARACTERS) for item in items]
        known = [rule for rule in rules if rule is not None]
        if not rules or len(known) < len(rules):
            return None
        separated = ' "," " "? '.join(known)
        return f'"[" {separated} "]"'
    if not items:
        return None
    rule = _json_rule(_item_field(items[0]), _MOST_ITEM_CHARACTERS)
    if rule is None:
        return None
    schema = _value_schema(field)
    least = schema.get("minItems", 0)
    most = max(least, min(schema.get("maxItems", _MOST_ITEMS), _MOST_REPETITIONS))
    if most == 0:
        return '"[]"'
    more = f'{rule} ("," " "? {rule}){{{max(least - 1, 0)},{most - 1}}}'
    return f'"[" {more} "]"' if least else f'"[" ({more})? "]"'


def _item_field(annotation: Any) -> Field:
    """An item of a list as a field, with the constraints of the item."""
    return Field("item", "output", FieldInfo.from_annotation(annotation))


def _json_rule(field: Field, most_characters: int = _MOST_CHARACTERS) -> str | None:
    """The rule for the JSON of a field's value: as `value_rule`, in one spelling, or a text. None for other types."""
    if field.core is str:
        rule: str | None = f'"\\"" {_JSON_CHARACTER}{_times(field, most_characters)} "\\""'
    elif field.choices:
        rule = _json_choices(field, [written for written, _ in field.choices])
    elif field.core is bool:
        rule = _json_choices(field, [True, False])
    else:
        rule = _number_or_list_rule(field)
    if rule is None or not field.takes_none:
        return rule
    return f'({rule} | "null")'


def _json_choices(field: Field, values: Iterable[Any]) -> str | None:
    texts: dict[str, None] = {}
    for value in values:
        if not isinstance(value, str | int | float | None):
            continue
        try:
            field.adapter.validate_python(value)
        except ValidationError:
            continue
        texts[json.dumps(value, ensure_ascii=False)] = None
    return _alternatives(texts) if texts else None


def _times(field: Field, most: int) -> str:
    """How often the rule of a character repeats in a text, within the limits of the field."""
    schema = _value_schema(field)
    least = schema.get("minLength", 0)
    return f"{{{least},{max(least, min(schema.get('maxLength', most), _MOST_REPETITIONS))}}}"


def _text_rule(field: Field, *, is_last: bool) -> str:
    """The rule for a value without a rule of its own: text on one line, or the free text of another type."""
    if field.core is not str:
        return _FREE_TEXT if is_last else _FREE_LINE
    schema = _value_schema(field)
    least = max(schema.get("minLength", 1), 1)
    most = max(least, min(schema.get("maxLength", _MOST_CHARACTERS), _MOST_REPETITIONS))
    if least == 1:
        return f"{_FIRST_CHARACTER} {_FURTHER_CHARACTER}{{0,{most - 1}}}"
    # The last character is no blank either: adapters drop blanks around a text, which may then be too short.
    return f"{_FIRST_CHARACTER} {_FURTHER_CHARACTER}{{{least - 2},{most - 2}}} {_FIRST_CHARACTER}"


def cut_outputs(signature: type[Signature], outputs: Mapping[str, Any]) -> list[str]:
    """The names of the outputs whose values are as long as a grammar allows, and which the field itself does not limit:
    the grammar has probably cut them."""
    names = []
    for name, field in signature.output_fields.items():
        value = outputs.get(name)
        schema = _value_schema(field)
        if field.core is str and isinstance(value, str):
            is_cut = "maxLength" not in schema and len(value) >= _MOST_CHARACTERS
        elif get_origin(field.core) in _CONTAINERS and isinstance(value, list | set | frozenset):
            is_cut = "maxItems" not in schema and len(value) >= max(_MOST_ITEMS, schema.get("minItems", 0))
        else:
            is_cut = False
        if is_cut:
            names.append(name)
    return names


def reply_grammar(parts: Sequence[str | Field], *, in_json: bool = False) -> str | None:
    """The grammar of a reply that consists of fixed texts and of the values of fields, in order.

    A value is one of few spellings, a number or a short list, as its type says; a text is on one line. ``in_json``:
    whether the values are written as JSON. There is no grammar then if a type other than these is among them.
    """
    rules: list[str] = []
    root: list[str] = []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            root.append(literal(part))
            continue
        rule = _json_rule(part) if in_json else value_rule(part)
        if rule is None and in_json:
            return None
        name = f"value{len(rules)}"
        root.append(name)
        rules.append(f"{name} ::= {rule or _text_rule(part, is_last=number == len(parts) - 1)}")
    return "\n".join([f"root ::= {' '.join(root)}", *rules])


def form_grammar(
    signature: type[Signature], write: Callable[..., str], read: Callable[..., Mapping[str, Any]], opening: str
) -> str | None:
    """The grammar of the replies of an adapter, in the form in which it writes outputs.

    ``write``, ``read``: the adapter's ``format_output`` and ``parse``. ``opening``: the beginning of the reply that
    the request has already. None if no output is typed, or if the adapter does not read what it writes.
    """
    if not has_typed_outputs(signature):
        return None
    fields = signature.output_fields
    marks = {name: f"dspynbvalue{number}x" for number, name in enumerate(fields)}
    try:
        text_signature = signature
        for name in fields:
            text_signature = text_signature.with_field(name, type=str)
        reply = write(text_signature, marks)
        if not reply.startswith(opening):
            return None
        reply = reply.removeprefix(opening)
        if dict(read(text_signature, reply)) != marks:
            return None
    except Exception:  # the adapter is a user's
        return None
    pieces = re.split(f"({'|'.join(marks.values())})", reply)
    if len(pieces) != 2 * len(fields) + 1:
        return None
    by_mark = {mark: fields[name] for name, mark in marks.items()}
    return reply_grammar([by_mark.get(piece, piece) for piece in pieces if piece])
