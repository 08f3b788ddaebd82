"""Translates the part of GBNF that dspynb writes into a regular expression, which can be matched and drawn from."""

from __future__ import annotations

import re

__all__ = ["language"]

_TOKEN = re.compile(
    r'"(?P<text>(?:[^"\\]|\\.)*)"|(?P<letters>\[(?:[^\]\\]|\\.)+\])|(?P<name>[a-z]+\d*)|(?P<sign>[()|?]|\{\d+,?\d*\}|\+)|\s+'
)


def language(grammar: str) -> re.Pattern[str]:
    """A pattern that matches the texts which the grammar derives, and no others. Its rules must not be recursive."""
    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines())
    return re.compile(_pattern(rules["root"], rules))


def _pattern(rule: str, rules: dict[str, str]) -> str:
    parts = []
    position = 0
    while position < len(rule):
        token = _TOKEN.match(rule, position)
        assert token is not None, f"not a part of GBNF that is used here: {rule[position : position + 40]!r}"
        position = token.end()
        if token["text"] is not None:
            parts.append(f"(?:{re.escape(_unescaped(token['text']))})")
        elif token["name"] is not None:
            parts.append(f"(?:{_pattern(rules[token['name']], rules)})")
        elif token["letters"] is not None:
            parts.append(token["letters"])
        elif token["sign"] is not None:
            parts.append(token["sign"].replace("(", "(?:"))
    return "".join(parts)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(x..|.)", lambda match: _CHARACTERS.get(match[1]) or chr(int(match[1][1:], 16)), text)


_CHARACTERS = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
