"""Two simulated worlds in which optimizers can be compared without a provider. Simulated: no model, no task.

A world is drawn from (kind, predictors, seed). It has 60 training, 60 validation and 500 held-out examples, one or
three stages (the predictors of the program), and says how likely a program is right on an example from what the
program *states*, never from how it says so. `worlds_server.py` plays the model; this file needs only the standard
library, so that every system under test can import it for its data, its metric and the score of its program.

``rule``: each stage has 16 hidden rules, fixed English phrases ("Write dates in lower case."). An example needs 1 to 3
    rules of any stages. A program is right with .95 where each needed rule is stated in the instruction of its stage,
    else with .15 (a part of them counts for nothing), less .01 for each stated rule (right or wrong) above 10 a stage.
``demo``: inputs lie in 12 clusters; a program is right with .35 + .55 x the similarity of the nearest demo shown
    (mean over the stages), less .1 for each wrong demo (.3 at most) and .02 for each demo above 8, plus up to .1 for
    four hidden rules stated a stage. 15 % of the training labels are wrong; validation and held-out labels are right.

*What shows*: half of the examples carry a remark in their question ("A clerk remarks: write dates in lower case.")
with one of the rules they need (in ``demo``: one of the hidden rules). So whoever looks at data or demos can learn
rules; the task model does not read remarks, only instructions. The metric's feedback on a wrong answer names one
missing rule with probability .8. A rule's verb tells its stage ("Note …", "Weigh …", "Write …").

*Several stages*: the text that a stage hands on holds a code with what was satisfied so far, so that the last call
can decide alone. The code is scrambled with the example's id and the seed: no rule can be read from it, but the
metric can (`World.judge`), which is how feedback gets to every system without extra calls.

The score of a program is its exact expected accuracy on the held-out examples, `World.expected(view)`; a view is
one ``{"instruction": str, "demos": [[example id, right], …]}`` for each stage.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

RULES, SHOWN, NAMED, WRONG_LABELS, TIPS, CLUSTERS = 16, 0.5, 0.8, 0.15, 4, 12
SIZES = {"train": 60, "val": 60, "test": 500}
SUBJECTS = re.findall(r"\w+", "dates amounts names places units times titles quotes lists colours weights routes")
FORMS = re.split(
    r" / ",
    "in lower case / in capital letters / in square brackets / after a dash / before the total / rounded down / "
    "without spaces / in reverse order / with two digits / at the very end",
)
WORDS = re.findall(
    r"\w+",
    "amber basil cedar delta ember flint grove hazel ivory jasper kelp linen maple nickel onyx pearl quartz reed slate "
    "topaz umber violet willow xenon yarrow zinc",
)
ID = re.compile(r"\[id:((?:train|val|test)-\d+)\]")
RULE = re.compile(rf"\b(note|weigh|write) ({'|'.join(SUBJECTS)}) ({'|'.join(FORMS)})\b", re.IGNORECASE)
FEEDBACK = re.compile(rf"rule is missing: ({RULE.pattern})", re.IGNORECASE)
CODE = re.compile(r"\b([nvw])~([0-9a-f]{10})\b")


class Draws:
    """Numbers from a hash of the key: the same on every machine, whatever was drawn before."""

    def __init__(self, *key: object) -> None:
        self.key, self.n = repr(key), 0

    def bits(self) -> int:
        self.n += 1
        return int.from_bytes(hashlib.blake2b(f"{self.key}/{self.n}".encode(), digest_size=7).digest())

    def uniform(self) -> float:
        return self.bits() / 2**56

    def normal(self) -> float:
        return math.sqrt(-2 * math.log(1 - self.uniform())) * math.cos(2 * math.pi * self.uniform())

    def sample(self, items: Iterable[Any], k: int) -> list[Any]:
        return sorted(items, key=lambda _: self.bits())[:k]

    def choice(self, items: Sequence[Any]) -> Any:
        return items[int(self.uniform() * len(items))]


@dataclass(frozen=True, slots=True)
class Stage:
    """One predictor of the program; ``verb`` begins its rules, ``mark`` its codes."""

    name: str
    inputs: tuple[str, ...]
    output: str
    instruction: str
    verb: str
    mark: str

    @property
    def pool(self) -> list[str]:
        return [f"{self.verb} {subject} {form}." for subject in SUBJECTS for form in FORMS]


_NOTES = Stage("take", ("question",), "notes", "Take notes on the question.", "Note", "n")
_VERDICT = Stage("judge", ("question", "notes"), "verdict", "Reach a verdict from the notes.", "Weigh", "v")
_LAST = Stage("answer", ("question", "verdict"), "answer", "Answer the question with one word.", "Write", "w")
_ONLY = Stage("answer", ("question",), "answer", "Answer the question with one word.", "Write", "w")
STAGES = {1: (_ONLY,), 3: (_NOTES, _VERDICT, _LAST)}


@dataclass(frozen=True, slots=True)
class Example:
    id: str
    question: str
    truth: str
    label: str
    """What the data says; differs from the truth in some training examples of the demo world."""
    needs: tuple[str, ...]
    point: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides, of one stage or of the stages so far."""

    missed: int = 0
    """Bits of the example's ``needs`` that were not stated."""
    near: int = 0
    """Similarity of the nearest demo, in 1/60, summed over stages."""
    tips: int = 0
    """Bits of the world's hidden rules (sorted) that were stated; used in the demo world."""
    penalty: int = 0
    """In hundredths."""

    def __add__(self, other: Facts) -> Facts:
        penalty = min(self.penalty + other.penalty, 63)
        return Facts(self.missed | other.missed, self.near + other.near, self.tips | other.tips, penalty)


def rules_in(text: str) -> list[str]:
    """The rules stated in a text, in the spelling of the pools, each once, in order."""
    found = (f"{m[1].capitalize()} {m[2].lower()} {m[3].lower()}." for m in RULE.finditer(text))
    return list(dict.fromkeys(found))


def feedback_in(text: str) -> list[str]:
    """The rules that some feedback in the text says are missing."""
    return list(dict.fromkeys(rule for m in FEEDBACK.finditer(text) for rule in rules_in(m[1])))


class World:
    """A world: its stages, hidden rules and examples, and the accuracy of programs in it."""

    def __init__(self, kind: str, predictors: int, seed: int) -> None:
        self.kind, self.predictors, self.seed = kind, predictors, seed
        self.stages = STAGES[predictors]
        draws = Draws("world", kind, predictors, seed)
        hidden = RULES if kind == "rule" else TIPS
        self.rules = [draws.sample(stage.pool, hidden) for stage in self.stages]
        self.hidden = {rule for rules in self.rules for rule in rules}
        self._centres = [[draws.normal() for _ in range(3)] for _ in range(CLUSTERS)]
        made = (self._example(split, i) for split, size in SIZES.items() for i in range(size))
        self.examples = {example.id: example for example in made}

    @cached_property
    def tips(self) -> list[str]:
        return sorted(self.hidden)

    def split(self, name: str) -> list[Example]:
        return [example for example in self.examples.values() if example.id.startswith(name + "-")]

    def rows(self, name: str) -> list[dict[str, str]]:
        """The examples of a split as a system gets them."""
        return [{"question": example.question, "answer": example.label} for example in self.split(name)]

    def _example(self, split: str, i: int) -> Example:
        name = f"{split}-{i:03}"
        draws = Draws("example", self.kind, self.predictors, self.seed, name)
        everything = sorted(self.hidden)
        needs = draws.sample(everything, 1 + int(3 * draws.uniform())) if self.kind == "rule" else []
        centre = draws.choice(self._centres)
        point = tuple(c + 0.25 * draws.normal() for c in centre)
        truth, other = draws.sample(WORDS, 2)
        wrong = self.kind == "demo" and split == "train" and draws.uniform() < WRONG_LABELS
        question = f"[id:{name}] Which word goes with file {1000 + int(9000 * draws.uniform())}?"
        if draws.uniform() < SHOWN:
            remark = draws.choice(needs or everything)
            question += f" A clerk remarks: {remark[0].lower()}{remark[1:]}"
        return Example(name, question, truth, other if wrong else truth, tuple(needs), point)

    # What a program is worth

    def facts(self, at: int, stated: Iterable[str], demos: Iterable[Sequence[Any]], example: Example) -> Facts:
        """Of the prompt of stage ``at``: the rules stated in its instruction, its demos as (id, right)."""
        told, shown = set(stated), [(self.examples[name], right) for name, right in demos]
        if self.kind == "rule":
            own = self.rules[at]
            missed = sum(1 << bit for bit, rule in enumerate(example.needs) if rule in own and rule not in told)
            return Facts(missed=missed, penalty=max(0, len(told) - 10))
        near = max((_similarity(demo.point, example.point) for demo, right in shown if right), default=0.0)
        wrong = sum(not right for _, right in shown)
        penalty = min(30, 10 * wrong) + 2 * max(0, len(shown) - 8)
        tips = sum(1 << bit for bit, rule in enumerate(self.tips) if rule in told and rule in self.rules[at])
        return Facts(near=round(60 * near), tips=tips, penalty=penalty)

    def nearest(self, demos: Iterable[Sequence[Any]], example: Example) -> str | None:
        """The id of the right demo that is nearest, where demos matter."""
        right = [name for name, right in demos if right and self.kind == "demo"]
        return max(right, key=lambda name: _similarity(self.examples[name].point, example.point), default=None)

    def accuracy(self, facts: Facts) -> float:
        """The probability of a right answer, given what all stages together satisfy."""
        stages = len(self.stages)
        if self.kind == "rule":
            raw = (0.15 if facts.missed else 0.95) - facts.penalty / 100
        else:
            gains = 0.55 * facts.near / 60 + 0.1 * facts.tips.bit_count() / TIPS - facts.penalty / 100
            raw = 0.35 + gains / stages
        return min(0.98, max(0.02, raw))

    def expected(self, view: Sequence[Mapping[str, Any]], split: str = "test") -> float:
        """The expected accuracy of a program on a split, computed, without any call."""
        stated = [rules_in(part["instruction"]) for part in view]
        examples = self.split(split)
        total = 0.0
        for example in examples:
            parts = (self.facts(i, stated[i], part["demos"], example) for i, part in enumerate(view))
            total += self.accuracy(sum(parts, Facts()))
        return total / len(examples)

    def base(self) -> float:
        """The expected accuracy of the program that nobody optimized."""
        return self.expected([{"instruction": stage.instruction, "demos": []} for stage in self.stages])

    def view(self, parts: Iterable[tuple[str, Iterable[Mapping[str, Any]]]]) -> list[dict[str, Any]]:
        """The view of a program given as (instruction, demos as dicts of fields) for each stage."""
        told = []
        for i, (instruction, demos) in enumerate(parts):
            shown = [seen for demo in demos if (seen := self._demo(i, demo)) is not None]
            told.append({"instruction": instruction, "demos": shown})
        return told

    def _demo(self, at: int, demo: Mapping[str, Any]) -> list[Any] | None:
        """A demo as [id, right]; None where a field is missing that an adapter needs to show it."""
        stage = self.stages[at]
        given = " ".join(str(demo[name]) for name in stage.inputs if demo.get(name) is not None)
        ids, reply = ID.findall(given), demo.get(stage.output)
        return [ids[-1], self.right(at, ids[-1], str(reply))] if ids and reply is not None else None

    def right(self, at: int, name: str, reply: str) -> bool:
        """Whether the output in a demo of a stage is right."""
        if at + 1 < len(self.stages):
            return any(self.read(mark, name, code) is not None for mark, code in CODE.findall(reply))
        return re.search(rf"\b{self.examples[name].truth}\b", reply) is not None

    # Codes and feedback

    def code(self, mark: str, name: str, facts: Facts, nonce: int = 0) -> str:
        packed = facts.missed | facts.near << 3 | facts.tips << 11 | facts.penalty << 23 | (nonce & 31) << 29
        return f"{mark}~{packed ^ self._mask(mark, name):010x}"

    def read(self, mark: str, name: str, code: str) -> Facts | None:
        """The facts in a code; None if it was not written for this example."""
        packed = int(code, 16) ^ self._mask(mark, name)
        if packed >> 34:
            return None
        return Facts(packed & 7, packed >> 3 & 255, packed >> 11 & 4095, packed >> 23 & 63)

    def _mask(self, mark: str, name: str) -> int:
        return Draws("mask", self.kind, self.predictors, self.seed, mark, name).bits() & 0xFFFFFFFFFF

    def judge(self, question: str, label: str, answer: str) -> tuple[float, str]:
        """The metric: exact match, and feedback that may name a rule that was missing."""
        if answer.strip() == label:
            return 1.0, "The answer is right."
        text = f"The answer is wrong; it should be {label}."
        name, codes = ID.findall(question)[-1], CODE.findall(answer)
        seen = self.read(*(codes[-1][0], name, codes[-1][1])) if codes else None
        if seen is None:
            return 0.0, text
        missing, draws = self._missing(name, seen), Draws("feedback", self.seed, name, answer)
        if missing and draws.uniform() < NAMED:
            text += f" A rule is missing: {draws.choice(missing)}"
        return 0.0, text

    def _missing(self, name: str, facts: Facts) -> list[str]:
        if self.kind == "rule":
            return [rule for bit, rule in enumerate(self.examples[name].needs) if facts.missed >> bit & 1]
        return [rule for bit, rule in enumerate(self.tips) if not facts.tips >> bit & 1]


def _similarity(a: Sequence[float], b: Sequence[float]) -> float:
    return math.exp(-sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 1.2)
