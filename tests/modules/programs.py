"""A program with predictors in every kind of place, for tests of discovery, states, hints and Refine."""

from __future__ import annotations

import datetime
import enum

from pydantic import BaseModel

import dspynb as dn
from tests.helpers import chat, prompt


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Source(BaseModel):
    title: str
    year: int


class Check(dn.Signature):
    """Check the answer against the sources."""

    answer: str = dn.Input()
    sources: list[Source] = dn.Input(desc="where it was found")
    ok: bool = dn.Output()
    when: datetime.date = dn.Output(desc="date of the check")


class Program(dn.Module):
    """Four predictors and a module: an attribute, a list, a dict, a nested module."""

    def __init__(self):
        self.retrieve = dn.Predict("question -> query")
        self.answer = dn.ChainOfThought("question, context: list[str] -> answer")
        self.steps = [dn.Predict("a -> b"), dn.Predict("b -> c: float")]
        self.by = {"x": dn.Predict(Check)}

    async def forward(self, question):
        query = (await self.retrieve(question=question)).query
        answer = (await self.answer(question=question, context=[query])).answer
        b = (await self.steps[0](a=answer)).b
        c = (await self.steps[1](b=b)).c
        checked = await self.by["x"](answer=answer, sources=[])
        return {"answer": answer, "c": c, "ok": checked.ok}


PATHS = ["retrieve", "answer.predict", "steps[0]", "steps[1]", "by['x']"]
_REPLIES = {"query": "q", "reasoning": "r", "answer": "a", "b": "b", "c": "1.5", "ok": "yes", "when": "2024-05-01"}


class Recording(dn.FunctionLM):
    """A FunctionLM that keeps the requests."""

    def __init__(self, fn):
        self.requests = []
        super().__init__(lambda request: (self.requests.append(request), fn(request))[1])


def model():
    """Answers every predictor of the program."""

    def reply(request):
        format_note = request.messages[-1]["content"].split("Respond with")[1]
        return chat(**{name: text for name, text in _REPLIES.items() if f"[[ ## {name} ## ]]" in format_note})

    return Recording(reply)


def hints_seen(lm):
    """The hint in each request, in order; None where there was none."""
    texts = map(prompt, lm.requests)
    return [text.split("Hint: ")[1].split("\n")[0] if "Hint: " in text else None for text in texts]
