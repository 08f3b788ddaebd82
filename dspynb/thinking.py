"""Thinking in the text of a reply: finding its tags, and separating it from the answer.

Models write their thinking between ``<think>`` and ``</think>``, or a tag of another name. Some chat templates write
the opening tag themselves, so that only the closing tag is in the reply. A prompt may ask for a tag of the same name,
such as ``<reasoning>``, so each function takes the ``Tags`` that are thinking. All functions take time linear in the
length of the text.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from dspynb.text_search import find_all, search

__all__ = [
    "ALL_TAGS",
    "BLANK",
    "SERVER_TAGS",
    "SplitReply",
    "Tags",
    "closing_tags",
    "may_have_tags",
    "split_growing",
    "split_opened",
    "tags_beside",
    "unopened_tag",
    "visible_text",
    "without_end",
]

INVISIBLE = "\ufeff\u200b\u200e\u200f\u2060"
"""Byte order marks and other characters that are not visible, which may come before a reply."""
BLANK = f"{INVISIBLE} \t\r\n"
"""Characters that are dropped at the ends of thinking, and before the text after it."""
_BLANK = rf"[\s{INVISIBLE}]*+"
_NAMES = ("think", "thinking", "thought", "reasoning")
_NEVER = "(?!)"
"""A pattern that matches nothing."""
_LONGEST_TAG = 128
"""More characters than any tag or other form has."""
_LINE_END = re.compile(r"[ \t\r]*+\n")
_START_OF_TAG = re.compile(rf"{_BLANK}<[ \t]{{0,4}}/?[ \t]{{0,4}}[a-zA-Z]{{0,9}}[ \t]{{0,4}}\Z")


class _Form(NamedTuple):
    """A form of thinking other than a tag: the texts before and after it.

    ``openings``, ``closings``: the texts that may begin and end it. ``then``: a pattern that must match after the
    opening. ``is_phrase``: whether they are words, which count only if both are there, and which a prompt may have
    asked for.
    """

    openings: tuple[str, ...]
    closings: tuple[str, ...]
    is_phrase: bool = False
    then: str = ""


# Sources: the reasoning parsers of vLLM (vllm/reasoning: mistral, seedoss, granite, gptoss, gemma4, kimi_k3) and SGLang
# (docs/advanced_features/separate_reasoning), and common/chat.cpp of llama.cpp (Command R7B, Apertus, Solar, Apriel).
_HARMONY = tuple(
    f"{start}<|channel|>{channel}<|message|>"
    for start in ("", "<|start|>assistant", "assistant")
    for channel in ("analysis", "commentary")
)
_FORMS = (
    _Form(("[THINK]",), ("[/THINK]",)),  # Mistral's Magistral
    _Form(("<seed:think>",), ("</seed:think>",)),  # Seed-OSS
    _Form(("◁think▷",), ("◁/think▷",)),  # Kimi
    _Form(("<|open|>think<|sep|>",), ("<|close|>think<|sep|>",)),  # Kimi K3
    _Form(("<|START_THINKING|>",), ("<|END_THINKING|>",)),  # Cohere's Command
    _Form(("<|inner_prefix|>",), ("<|inner_suffix|>",)),  # Apertus
    _Form(("<|channel>thought",), ("<channel|>",)),  # Gemma 4
    _Form(("<|think|>",), ("<|end|>",)),  # Solar
    _Form(_HARMONY, ("<|end|>", "<|start|>assistant<|channel|>final<|message|>")),  # gpt-oss
    # gpt-oss, where a server drops its special tokens: "analysisThe user asks …assistantfinalParis"
    _Form(("analysis",), ("assistantfinal",), is_phrase=True, then=r"(?=[^\W_a-z])"),
    _Form(  # Granite 3.2
        ("Here is my thought process:", "Here's my thought process:"),
        ("Here is my response:", "Here's my response:"),
        is_phrase=True,
    ),
    _Form(("Here are my reasoning steps:",), ("[BEGIN FINAL RESPONSE]",), is_phrase=True),  # Apriel
)
_ANSWER_OPENINGS = (
    *(f"{start}<|channel|>final<|message|>" for start in ("", "<|start|>assistant", "assistant")),
    "<|START_RESPONSE|>",
    "<|START_TEXT|>",
    "<|begin|>assistant<|content|>",
    "[BEGIN FINAL RESPONSE]",
)
"""What some of these models write between their thinking and the answer."""
_ANSWER_ENDS = (
    "<|return|>",
    "<|end|>",
    "<|END_RESPONSE|>",
    "<|END_TEXT|>",
    "[END FINAL RESPONSE]",
    "<|END_OF_TURN_TOKEN|>",
)
"""What they write after the answer."""
_LONE_CLOSINGS = (
    *(closing for form in _FORMS[:7] for closing in form.closings),
    *(f"<|end|>{opening}" for opening in _ANSWER_OPENINGS[:3]),
    *_ANSWER_OPENINGS,
)
"""What ends thinking whose beginning is in the prompt."""


def _any_of(texts: Iterable[str]) -> str:
    return "|".join([re.escape(text) for text in sorted(texts, key=len, reverse=True)])


_ANSWER_OPENING = re.compile(f"(?:{_BLANK}(?:{_any_of(_ANSWER_OPENINGS)}))+")
_BEGINNINGS = tuple(
    [text for form in _FORMS for text in (*form.openings, *form.closings)] + [*_ANSWER_OPENINGS, *_LONE_CLOSINGS]
)


class Tags:
    """The tags and other forms that are thinking.

    ``names``: the names of the tags that begin thinking, in lower case. ``closing_names``: those of the tags that may
    end it. ``phrases``: whether words such as "Here is my thought process:" begin it too.
    """

    __slots__ = ("any_closing", "any_tag", "closing", "leading_closing", "opening", "phrases")

    def __init__(self, names: Sequence[str], closing_names: Sequence[str], *, phrases: bool = True) -> None:
        closing_name = "|".join(closing_names) or _NEVER
        any_closing = rf"(?i:<[ \t]{{0,4}}/[ \t]{{0,4}}(?:{closing_name})[ \t]{{0,4}}>)|{_any_of(_LONE_CLOSINGS)}"
        openings = {}
        self.closing = {}
        for name in names:
            openings[name] = rf"(?i:<[ \t]{{0,4}}{name}[ \t]{{0,4}}>)"
            self.closing[name] = re.compile(rf"<[ \t]{{0,4}}/[ \t]{{0,4}}{name}[ \t]{{0,4}}>", re.IGNORECASE)
        self.phrases = set()
        for number, form in enumerate(_FORMS):
            group = f"form{number}"
            if form.is_phrase and not phrases:
                continue
            if form.is_phrase:
                self.phrases.add(group)
            openings[group] = f"(?:{_any_of(form.openings)}){form.then}"
            self.closing[group] = re.compile(_any_of(form.closings))
        grouped = "|".join([f"(?P<{group}>{pattern})" for group, pattern in openings.items()])
        any_name = rf"(?i:<[ \t]{{0,4}}(?:{closing_name})[ \t]{{0,4}}>)"
        any_opening = "|".join([any_name, *(_any_of(form.openings) for form in _FORMS if not form.is_phrase)])
        self.opening = re.compile(f"{_BLANK}(?:{grouped})")
        self.any_tag = re.compile(f"(?P<closing>{any_closing})|{any_opening}")
        self.any_closing = re.compile(any_closing)
        self.leading_closing = re.compile(f"{_BLANK}(?:{any_closing})")


ALL_TAGS = Tags(_NAMES, _NAMES)
"""The tags of all names that models use for thinking, and all other forms."""
SERVER_TAGS = Tags(_NAMES[:1], _NAMES, phrases=False)
"""What servers leave in a reply: the tag ``<think>``, which another closing tag may end, and the other forms. A tag of
another name, or a phrase, may be what a prompt asks for."""


def tags_beside(outputs: Iterable[str]) -> Tags:
    """The tags that are thinking in a reply with outputs of these names: a tag with the name of an output is none."""
    output_names = {name.lower() for name in outputs}
    return _tags_of(tuple([name for name in _NAMES if name not in output_names]))


@lru_cache(maxsize=16)
def _tags_of(names: tuple[str, ...]) -> Tags:
    return Tags(names, names)


class SplitReply(NamedTuple):
    """The two parts of a reply's text. Together they are the text without the tags.

    ``is_finished``: False if the reply ends within its thinking.
    """

    thinking: str
    text: str
    is_finished: bool = True


def may_have_tags(text: str) -> bool:
    """Whether a text may contain thinking. Nearly every reply has none, and needs no further search."""
    # Written out, since each call of a model comes here three times. A search for one character is the fastest one.
    if "<" in text or "◁" in text or ("/" in text and "[/THINK]" in text) or "[BEGIN FINAL RESPONSE]" in text:
        return True
    if text[:1] in _FIRST_LETTERS and text[:2] != "[[":  # the markers of ChatAdapter
        return text.lstrip(BLANK).startswith(_PLAIN_OPENINGS)
    return False


_PLAIN_OPENINGS = ("[THINK]", *[opening for form in _FORMS if form.is_phrase for opening in form.openings])
"""The openings without any of the characters that ``may_have_tags`` searches."""
_FIRST_LETTERS = frozenset({*BLANK, *[opening[0] for opening in _PLAIN_OPENINGS]})


def split_opened(text: str, tags: Tags = ALL_TAGS) -> SplitReply:
    """Split off the thinking at the beginning of a text: one or more blocks that begin with an opening tag.

    A block ends with the closing tag of the same form; if there is none, with the first closing tag of another form; if
    there is none, with the text.
    """
    return _split(text, tags)


def _split(text: str, tags: Tags, *, is_growing: bool = False) -> SplitReply:
    """``is_growing``: whether more text will follow, so that a phrase may still get its end."""
    thinking: list[str] = []
    position = 0
    has_form = False
    missing: set[str] = set()  # the forms without a closing tag after this position, which are searched once
    opening = tags.opening.match(text)
    while opening is not None:
        form = str(opening.lastgroup)
        closing = _closing_tag(text, opening, missing, tags)
        if closing is None and form in tags.phrases and not is_growing:
            break
        has_form = has_form or form not in _NAMES
        thinking.append(text[position : opening.start(form)])
        if closing is None:
            thinking.append(text[opening.end() :])
            return SplitReply("".join(thinking), "", is_finished=False)
        thinking.append(text[opening.end() : closing.start()])
        position = closing.end()
        opening = tags.opening.match(text, position)
    answer = _ANSWER_OPENING.match(text, position)
    if answer is not None:
        position = answer.end()
    if not position:
        return SplitReply("", text)
    if has_form or answer is not None:
        return SplitReply("".join(thinking), without_end(text[position:]))
    return SplitReply("".join(thinking), text[position:])


def without_end(answer: str) -> str:
    """An answer without the special tokens that some models write after it."""
    end = answer.rstrip()
    while end.endswith(_ANSWER_ENDS):
        token = next(token for token in _ANSWER_ENDS if end.endswith(token))
        answer = end[: -len(token)]
        end = answer.rstrip()
    return answer


def _closing_tag(text: str, opening: re.Match[str], missing: set[str], tags: Tags) -> re.Match[str] | None:
    form = str(opening.lastgroup)
    if form not in missing:
        closing = search(tags.closing[form], text, opening.end(), longest=_LONGEST_TAG)
        if closing is not None:
            return closing
        missing.add(form)
    if form in tags.phrases:
        return None
    return search(tags.any_closing, text, opening.end(), longest=_LONGEST_TAG)


def closing_tags(text: str, most: int, tags: Tags = ALL_TAGS) -> list[re.Match[str]]:
    """The last closing tags of a text, at most ``most``, in order."""
    if not may_have_tags(text):
        return []
    last_tags: deque[re.Match[str]] = deque(maxlen=most)
    for tag in find_all(tags.any_closing, text, longest=_LONGEST_TAG):
        last_tags.append(tag)
    return list(last_tags)


def unopened_tag(text: str, tags: Tags = ALL_TAGS) -> re.Match[str] | None:
    """The first closing tag that ends its line, with another line after it, or that is the beginning of the text. None
    if an opening tag is before it."""
    if tags.leading_closing.match(text):
        return search(tags.any_closing, text, longest=_LONGEST_TAG)
    for tag in find_all(tags.any_tag, text, longest=_LONGEST_TAG):
        if tag["closing"] is None:
            return None
        if _LINE_END.match(text, tag.end()):
            return tag
    return None


def visible_text(text: str, tags: Tags = ALL_TAGS) -> str:
    """The part of a growing text that is no thinking: what comes after the thinking at its beginning.

    Empty while the thinking goes on, and while the text may be the beginning of thinking.
    """
    return split_growing(text, tags).text


def split_growing(text: str, tags: Tags = ALL_TAGS) -> SplitReply:
    """Split off the thinking at the beginning of a growing text. A text that may be the beginning of thinking has
    neither thinking nor text yet."""
    if not may_have_tags(text):
        return SplitReply("", "" if _may_begin_form(text) else text)
    split = _split(text, tags, is_growing=True)
    rest = split.text
    closing = tags.leading_closing.match(rest)
    if closing is not None:
        rest = rest[closing.end() :]
    if _START_OF_TAG.match(rest) or _may_begin_form(rest):
        rest = ""
    return split._replace(text=rest)


_LONGEST_BEGINNING = max(map(len, _BEGINNINGS))


def _may_begin_form(text: str) -> bool:
    """Whether a growing text may be the beginning of a form of thinking, or of what is between it and the answer."""
    if len(text) > 4 * _LONGEST_BEGINNING:
        return False
    beginning = text.lstrip(BLANK)
    return bool(beginning) and any(form.startswith(beginning) for form in _BEGINNINGS)
