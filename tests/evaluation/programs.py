"""A question-answering program, its data and its metrics, for tests of evaluation; importable by other processes."""

from __future__ import annotations

import asyncio
import random

import pandas as pd

import dspynb as dn
from tests.helpers import chat, field


def doubling(delay=None, calls=None):
    """A model that doubles a number, after ``delay(question)`` seconds; ``calls`` gets the questions."""

    async def answer(request):
        question = field(request, "question")
        if calls is not None:
            calls.append(question)
        if delay is not None:
            await asyncio.sleep(delay(question))
        if question == "bad":
            raise dn.errors.ServerError("the provider fell over")
        return chat(answer=str(2 * int(question)))

    return dn.FunctionLM(answer)


def program(delay=None, calls=None):
    return dn.Predict("question -> answer", lm=doubling(delay, calls))


def late(seed=0, most=0.004):
    """Random delays."""
    chance = random.Random(seed)
    return lambda question: chance.random() * most


def frame(n, wrong=()):
    """Questions 0 to n - 1 with their doubles as labels, but for the wrong ones."""
    questions = [str(i) for i in range(n)]
    answers = ["?" if i in wrong else str(2 * i) for i in range(n)]
    return pd.DataFrame({"question": questions, "answer": answers}, index=[f"r{i}" for i in range(n)])


def right(row, prediction):
    return dn.Score(float(row.answer == prediction.answer), f"expected {row.answer}")


async def rows_ended(run, n):
    """Wait until ``n`` rows of the run have ended."""
    async for event in run.events():
        n -= type(event).__name__ == "RolloutEnded"
        if n == 0:
            return
