"""Checks received spans against the table of the semantic conventions, ``genai_conventions.json``."""

from __future__ import annotations

import json
from pathlib import Path

TABLE = json.loads((Path(__file__).parent / "genai_conventions.json").read_text())
_OWN = "dspynb."


def problems_of(span):
    """What is wrong with a span by the conventions; an empty list if nothing is."""
    where = span.name
    problems = []
    operation = span.attributes.get("gen_ai.operation.name")
    if operation is None:  # a row or an attempt, which the conventions do not have
        rule = {"kinds": ["INTERNAL"], "attributes": {"error.type": "conditionally_required"}, "name": None}
    elif operation in TABLE["spans"]:
        rule = TABLE["spans"][operation]
    else:
        return [f"{where}: unknown operation {operation}"]
    if span.kind not in rule["kinds"]:
        problems.append(f"{where}: its kind is {span.kind}")
    if rule["name"] is not None and span.name != _expected_name(rule["name"], span.attributes):
        problems.append(f"{where}: its name is not {rule['name']}")
    known = {**rule["attributes"], **rule.get("earlier", {})}
    problems += _wrong_attributes(where, span.attributes, span.types, known)
    problems += _missing(where, span.attributes, rule["attributes"], span.is_error)
    for event in span.events:
        problems += _wrong_event(where, event, span.types)
    if span.end < span.start:
        problems.append(f"{where}: it ends before it starts")
    return problems


def _expected_name(template, attributes):
    name = template
    for key, value in attributes.items():
        name = name.replace("{" + key + "}", str(value))
    return name.partition(" {")[0]


def _wrong_attributes(where, attributes, types, known, prefix=""):
    problems = []
    for name, value in attributes.items():
        if name.startswith(_OWN):
            continue
        if name not in known:
            problems.append(f"{where}: it must not have the attribute {name}")
            continue
        expected = TABLE["types"][name]
        received = types[prefix + name]
        if expected == "any":  # JSON text on spans
            if received != "string":
                problems.append(f"{where}: {name} is {received}")
            problems += [f"{where}: {name}: {problem}" for problem in _wrong_content(name, _strict_json(value))]
        elif received != expected:
            problems.append(f"{where}: {name} is {received}, not {expected}")
        if value in ("", []):
            problems.append(f"{where}: {name} is empty")
    return problems


def _strict_json(text):
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _wrong_content(name, value):
    """What is wrong with messages or tools by their schemas."""
    if name == "gen_ai.tool.definitions":
        return [f"a tool lacks {key}" for tool in value for key in TABLE["tools"] if not isinstance(tool.get(key), str)]
    if not name.endswith(".messages"):
        return []
    problems = []
    for message in value:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("parts"), list):
            problems.append("a message lacks role or parts")
            continue
        for part in message["parts"]:
            required = TABLE["parts"].get(part["type"], [])
            problems += [f"a part of type {part['type']} lacks {key}" for key in required if key not in part]
            if "content" in required and not isinstance(part.get("content"), str):
                problems.append(f"the content of a part of type {part['type']} is no text")
    return problems


def _missing(where, attributes, levels, is_error):
    """The attributes that are required, by themselves or since their condition holds, and missing."""
    problems = []
    holds = {
        "error.type": is_error,
        "gen_ai.request.model": True,
        "gen_ai.agent.name": attributes.get("gen_ai.operation.name") == "invoke_agent",
        "gen_ai.workflow.name": True,
        "gen_ai.request.stream": "gen_ai.response.time_to_first_chunk" in attributes,
        "server.port": "server.address" in attributes,
    }
    for name, level in levels.items():
        is_required = level == "required" or (level == "conditionally_required" and holds.get(name, False))
        if is_required and name not in attributes:
            problems.append(f"{where}: it lacks {name}")
    if "error.type" in attributes and not is_error:
        problems.append(f"{where}: it has error.type and its status is no error")
    return problems


def _wrong_event(where, event, types):
    if event.name not in TABLE["events"]:
        return [f"{where}: unknown event {event.name}"]
    levels = TABLE["events"][event.name]
    where = f"{where}, {event.name}"
    problems = _wrong_attributes(where, event.attributes, types, levels, f"{event.name}/")
    problems += [
        f"{where}: it lacks {name}"
        for name, level in levels.items()
        if level == "required" and name not in event.attributes
    ]
    if "exception.type" in levels and not {"exception.type", "exception.message"} & set(event.attributes):
        problems.append(f"{where}: it has neither a type nor a message")
    if "gen_ai.evaluation.name" in levels and "gen_ai.evaluation.score.value" not in event.attributes:
        problems.append(f"{where}: it has no score")
    return problems
