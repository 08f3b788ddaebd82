"""What a model would answer in the ten checks of ``dspynb.contrib.doctor``, whichever adapter wrote the prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Answer", "Prompt", "ToolCall", "answer"]

THINKING = "The user wants a short answer. I should keep to the format."
"""What a model that thinks writes before each reply."""
_VALUES: Mapping[str, Any] = {
    "city": "Paris",
    "inhabitants": 2_102_650,
    "continent": "Europe",
    "is_capital": True,
    "new_instruction": "Answer with the number only.",
    "proposed_instruction": "Give the result as one number.",
}
"""Values of outputs by name. An output with another name is a text, and gets a sentence."""
_SENTENCE = "The task is to add two small numbers."
_ANSWERS = {"How many people live in Oslo": "709037", "capital of France": "Paris", "capital of Norway": "Oslo"}
"""Answers by words of the question. Any other question is a sum with the result 4."""
_TOOL = "population"
_TOOL_RESULT = "709037"
_CHAT_REQUEST = "Respond with `[[ ## "
_CHAT_MARKER = re.compile(r"`\[\[ ## (\w+) ## \]\]`")
_JSON_REQUEST = "Reply with one JSON object: {"
_JSON_KEY = re.compile(r'"(\w+)": ')
_LABELS_OF_TYPES = re.compile(r"(?:^[\w ]+: .*\n?)+\Z", re.MULTILINE)
"""The end of the prefill adapter's system message for typed outputs."""
_LABELLED_REQUEST = re.compile(r"^Answer with th(?:is line|ese lines):\n((?:[\w ]+: .*\n?)+)", re.MULTILINE)


@dataclass(frozen=True)
class Prompt:
    """A request in no provider's format. ``messages``: the texts with their roles, ``system``, ``user``, ``assistant``
    or ``tool``, in order. ``tools``: the names of the tools. ``schema``: the JSON schema of the reply, if there is one.
    """

    messages: Sequence[tuple[str, str]]
    tools: Sequence[str] = ()
    schema: Mapping[str, Any] | None = None

    def text_of(self, role: str) -> str:
        """The texts of all messages with a role."""
        return "\n\n".join(text for message_role, text in self.messages if message_role == role)


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the model replies. ``thinking``: for providers whose models think; others leave it out. ``is_cut``: whether
    the text was cut at the limit of tokens."""

    text: str
    tool_calls: Sequence[ToolCall] = field(default=())
    thinking: str = THINKING
    is_cut: bool = False

    def cut(self, limit: int | None) -> Answer:
        """The reply with at most ``limit`` words, which count as tokens here. Thinking does not count."""
        words = re.findall(r"\S+\s*", self.text)
        if limit is None or len(words) <= limit:
            return self
        return replace(self, text="".join(words[:limit]), is_cut=True)


def answer(prompt: Prompt) -> Answer:
    """The reply to a prompt. Raises ValueError if the prompt describes no format that an adapter of dspynb writes."""
    has_result = _TOOL_RESULT in prompt.text_of("user") + prompt.text_of("tool")
    if _TOOL in prompt.tools and not has_result:
        return Answer("", [ToolCall(_TOOL, {"city": "Oslo"})])
    names = _names_of_chat(prompt)
    if names:
        return Answer(_in_chat_format(_values(names, prompt, has_result)))
    names = _names_of_json(prompt)
    if names:
        return Answer(json.dumps(_values(names, prompt, has_result)))
    return Answer(_in_lines(prompt, has_result))


def _names_of_chat(prompt: Prompt) -> list[str]:
    """The outputs that the chat adapter requests. The last request counts: those before it belong to demos."""
    _, request, rest = prompt.text_of("user").rpartition(_CHAT_REQUEST)
    if not request:
        return []
    names = _CHAT_MARKER.findall(f"{_CHAT_REQUEST}{rest}".partition(".")[0])
    return [name for name in names if name != "completed"]


def _names_of_json(prompt: Prompt) -> list[str]:
    if prompt.schema is not None:
        return list(prompt.schema["properties"])
    text = "\n\n".join(text for _, text in prompt.messages)
    _, request, rest = text.rpartition(_JSON_REQUEST)
    if not request:
        return []
    return _JSON_KEY.findall(rest.partition("\n")[0])


def _values(names: Sequence[str], prompt: Prompt, has_result: bool) -> dict[str, Any]:
    """The values of outputs by name."""
    step = {
        "next_thought": "I know the number of people." if has_result else "I need the number of people.",
        "next_tool_name": "finish" if has_result else _TOOL,
        "next_tool_args": {} if has_result else {"city": "Oslo"},
        "answer": _answer_to(prompt),
    }
    known = {**_VALUES, **step}
    return {name: known.get(name, _SENTENCE) for name in names}


def _answer_to(prompt: Prompt) -> str:
    """The answer to the last question of the prompt: those before it belong to demos."""
    questions = prompt.text_of("user")
    positions = {text: questions.rfind(words) for words, text in _ANSWERS.items()}
    positions["4"] = questions.rfind(" + ")
    return max(positions, key=lambda text: positions[text])


def _in_chat_format(values: Mapping[str, Any]) -> str:
    sections = []
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        sections.append(f"[[ ## {name} ## ]]\n{text}\n")
    return "\n".join([*sections, "[[ ## completed ## ]]"])


def _in_lines(prompt: Prompt, has_result: bool) -> str:
    """The reply after the label of the first output, which the prefill adapter has begun."""
    role, opening = prompt.messages[-1]
    if role != "assistant" or not opening.endswith(":"):
        raise ValueError(f"the prompt describes no known format: {prompt.messages[-1]}")
    request = _LABELLED_REQUEST.search(prompt.text_of("user"))
    types = _LABELS_OF_TYPES.search(prompt.text_of("system"))
    labels = [opening.removesuffix(":")]
    if request is not None:
        labels = [line.partition(":")[0] for line in request[1].splitlines()]
    elif types is not None:
        labels = [line.partition(":")[0] for line in types[0].splitlines()]
    names = [label.lower().replace(" ", "_") for label in labels]
    lines = []
    for label, value in zip(labels, _values(names, prompt, has_result).values(), strict=True):
        text = value if isinstance(value, str) else json.dumps(value)
        lines.append(f"{label}: {text}")
    return "\n".join(lines).removeprefix(opening)
