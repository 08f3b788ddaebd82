"""How well the embedded model keeps to types, and how often its answers are right.

    python -m tests.campaigns.embedded_model            the 60 rows of each task that no choice was made on
    python -m tests.campaigns.embedded_model --choose   the 30 rows on which prompt and grammar were chosen

Prints the accuracy of each task, beside the share of the most frequent class, and the number of replies that could not
be read.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import dspynb as dn
from tests.campaigns.embedded_rows import NUMBERS, SENTIMENTS, TOPICS, Rows, split

__all__ = ["MESSAGES", "TASKS", "Triage", "accuracy"]


class Sentiment(dn.Signature):
    """Classify the sentiment of the text as positive or negative."""

    text: str = dn.Input()
    sentiment: Literal["positive", "negative"] = dn.Output()


class Topic(dn.Signature):
    """Say what the text is about."""

    text: str = dn.Input()
    topic: Literal["sports", "technology", "food"] = dn.Output()


class Number(dn.Signature):
    """Extract the number from the text."""

    text: str = dn.Input()
    number: int = dn.Output()


class Triage(dn.Signature):
    """Say how urgent the customer's message is, and whether it is a complaint."""

    message: str = dn.Input()
    urgency: Literal["low", "medium", "high"] = dn.Output()
    is_complaint: bool = dn.Output()


TASKS: dict[str, tuple[type[dn.Signature], Sequence[tuple[str, object]], float]] = {
    "sentiment": (Sentiment, SENTIMENTS, 0.90),
    "topic": (Topic, TOPICS, 0.60),
    "number": (Number, NUMBERS, 0.90),
}
"""Output → its signature, its rows, and the accuracy that is expected at least."""
MESSAGES = [
    "The server is down and our customers cannot pay!",
    "Could you send me last month's invoice when you have time?",
    "Thank you for lunch yesterday.",
    "My order is late for the third time.",
    "How do I change my password?",
    "I want to cancel my subscription, the product never worked.",
    "URGENT: data of two patients is visible to everyone.",
    "Do you ship to Norway?",
]
"""Messages of customers."""


def accuracy(output: str, rows: Rows, adapter: str | None = None) -> tuple[float, float, int]:
    """The share of right answers, the share of the most frequent class, and the number of failed rows."""
    signature, _, _ = TASKS[output]
    program = dn.Predict(signature, lm=dn.LocalLM(), adapter=adapter)
    evaluation = asyncio.run(dn.evaluate(program, rows, dn.metrics.exact_match(output)))
    classes: Counter[Any] = Counter(row[output] for row in rows)
    failed = sum(error is not None for error in evaluation.exceptions)
    return float(evaluation), max(classes.values()) / len(rows), failed


def main(arguments: Sequence[str]) -> None:
    """Measure all tasks and print their figures."""
    dn.configure(view="off", runs_dir=None, cache=False)
    for output, (_, all_rows, expected) in TASKS.items():
        chosen_on, reported = split(all_rows, output)
        rows = chosen_on if "--choose" in arguments else reported
        share, majority, failed = accuracy(output, rows)
        print(f"{output}, {len(rows)} rows: {share:.2f} right, {failed} failed")
        print(f"    expected: {expected:.2f}; the most frequent class: {majority:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
