"""Programs, models and metrics that workers can import, and functions that compare runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import dspynb as dn
from dspynb.events import PredictorCalled
from tests.helpers import Caption, chat, field, prompt


def doubled(request):
    """The double of the question; ``bad`` fails."""
    question = field(request, "question")
    if question == "bad":
        raise dn.errors.ServerError("the provider fell over")
    return chat(answer=str(2 * int(question)))


def hinted(request):
    """A sentence that is the hint in the prompt."""
    text = prompt(request)
    hint = text.split("Hint: ")[1].split("\n[[")[0].strip() if "Hint: " in text else "none"
    return chat(sentence=f"{hint} {request.rollout}")


def program():
    """Doubles a question."""
    return dn.Predict("question -> answer", lm=dn.FunctionLM(doubled))


class Direct(dn.Module):
    """Doubles a question, and calls a model directly before."""

    def __init__(self):
        self.lm = dn.FunctionLM(lambda request: request.messages[-1]["content"])
        self.double = program()

    async def forward(self, question):
        said = await self.lm(question)
        return await self.double(question=said.text)


def rows(n, bad=()):
    return [{"question": "bad" if i in bad else str(i), "answer": str(2 * i + (i % 3 == 0))} for i in range(n)]


def right(row, prediction):
    return dn.Score(float(row.answer == prediction.answer), f"expected {row.answer}", {"length": 0.5})


def by_pid(row, prediction):
    """A metric whose feedback is the id of its process."""
    return dn.Score(1.0, str(os.getpid()))


def wordy(row, prediction):
    """A reward whose feedback grows with the length of the sentence."""
    return dn.Score(min(1.0, len(prediction.sentence) / 40), f"more than {len(prediction.sentence)} letters")


def refined():
    return dn.Refine(dn.Predict(Caption, lm=dn.FunctionLM(hinted)), wordy, n=4, threshold=0.9, hints="feedback")


class Slow:
    """A model that takes ``seconds``. It writes a file into a folder for each request and for each answer.

    In a process for which the folder has a file ``hold PID``, it never answers. It writes a file ``held …`` then.
    """

    def __init__(self, folder, seconds):
        self.folder, self.seconds, self.name = Path(folder), seconds, "slow"

    async def complete(self, request):
        question = field(request, "question")
        (self.folder / f"asked {question} {os.getpid()}").touch()
        if (self.folder / f"hold {os.getpid()}").exists():
            (self.folder / f"held {question} {os.getpid()}").touch()
            await asyncio.sleep(600)
        await asyncio.sleep(self.seconds)
        (self.folder / f"answered {question} {os.getpid()}").touch()
        return dn.LMReply(chat(answer=str(2 * int(question))))


def marks(folder, kind):
    return sorted(path.name for path in Path(folder).iterdir() if path.name.startswith(kind))


def without_times(frame):
    """A table without the columns that differ between runs: times and spans."""
    columns = [
        c for c in frame.columns if c not in ("seconds", "waited", "wall", "first_token", "started", "span", "parent")
    ]
    return frame[columns]


def calls_of(run):
    """The calls of a run, sorted."""
    calls = [e for e in run.record.events if isinstance(e, PredictorCalled)]
    return sorted((c.predictor, str(c.messages), c.rollout, str(c.hint), str(c.outputs), str(c.error)) for c in calls)
