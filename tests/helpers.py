"""Small programs and models that many tests use."""

from __future__ import annotations

from pathlib import Path

import dspynb as dn
from dspynb.running.journal import flush_journals


class Caption(dn.Signature):
    """Write one sentence about the subject."""

    subject: str = dn.Input()
    sentence: str = dn.Output(desc="one sentence")


def chat(**fields):
    """A ChatAdapter reply with these output fields."""
    sections = [f"[[ ## {name} ## ]]\n{value}\n" for name, value in fields.items()]
    return "".join([*sections, "[[ ## completed ## ]]"])


def prompt(request):
    """All text of a request."""
    return "\n".join(str(m["content"]) for m in request.messages)


def field(request, name):
    """The value of an input field in the last user message of a chat request."""
    return request.messages[-1]["content"].split(f"[[ ## {name} ## ]]\n")[1].split("\n")[0]


def echo_hint(**fields):
    """A model whose ``sentence`` is the hint in its prompt, or ``none``."""

    def answer(request):
        text = prompt(request)
        hint = text.split("Hint: ")[1].split("\n[[")[0].strip() if "Hint: " in text else "none"
        return chat(sentence=hint, **fields)

    return dn.FunctionLM(answer)


def scores(*values, feedback=None):
    """A reward that returns these values in order, one per call."""
    remaining = list(values)

    def reward(row, prediction):
        return dn.Score(remaining.pop(0), feedback=feedback)

    return reward


def journal(run):
    """The text of a run's file."""
    flush_journals()
    return Path(run.path).read_text()
