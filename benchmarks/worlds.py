"""Two simulated worlds in which optimizers can be compared without a provider. Simulated: no model, no task.

A world is drawn from (kind, predictors, seed). It has 60 training, 60 validation and 500 held-out examples, and one or
three stages (the predictors of the program). It computes the probability that a program is right on an example. This
depends only on the rules that the program states and the demos that it shows, not on its wording. `worlds_server.py`
plays the model. This file needs only the standard library, so that every system under test can import it for its data,
its metric and the score of its program.

``rule``: each stage has 16 hidden rules, which are fixed English phrases ("Write dates in lower case."). An example
    needs 1 to 3 rules, of any stages. A program is right with probability .95 if each needed rule is stated in the
    instruction of its stage, else with .15 (stating some of them has no effect). Each stated rule (right or wrong)
    above 10 per stage subtracts .01.
``demo``: inputs lie in 12 clusters. A program is right with probability .35 + .55 x the similarity of the nearest demo
    (mean over the stages). Each wrong demo subtracts .1 (at most .3 in total), and each demo above 8 subtracts .02. Up
    to .1 is added for four hidden rules stated per stage. 15 % of the training labels are wrong; validation and
    held-out labels are right.

*Remarks*: the question of every second example contains a remark ("A clerk remarks: write dates in lower case.") with
one of the rules that the example needs (in ``demo``: one of the hidden rules). So a proposer that reads data or demos
can learn rules. The task model does not read remarks, only instructions. For a wrong answer, the metric's feedback
names one missing rule with probability .8. The verb of a rule says which stage it belongs to ("Note …", "Weigh …",
"Write …").

*Several stages*: the output of a stage contains a code for what has been satisfied so far, so that the last call alone
decides about the answer. The code is scrambled with the example's id and the seed. No rule can be read from it, but the
metric can decode it (`World.judge`). So every system gets feedback without extra calls.

The score of a program is its exact expected accuracy on the held-out examples, `World.expected(view)`. A view has one
dict ``{"instruction": str, "demos": [[example id, right], …]}`` for each stage.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

RULES = 16
"""Hidden rules per stage of the ``rule`` world."""
TIPS = 4
"""Hidden rules per stage of the ``demo`` world."""
CLUSTERS = 12
REMARK_PROBABILITY = 0.5
FEEDBACK_PROBABILITY = 0.8
WRONG_LABEL_PROBABILITY = 0.15
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
    """Random numbers that depend only on the key and the number of draws so far, on every machine."""

    def __init__(self, *key: object) -> None:
        self.key = repr(key)
        self.n = 0

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
    """One predictor of the program. Its rules begin with ``verb``, and its codes with ``mark``."""

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
    """The label in the data. It differs from the truth in some training examples of the demo world."""
    needs: tuple[str, ...]
    point: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides whether an answer is right, for one stage or for the stages so far.

    The names of the fields are part of the keys that replies are drawn from: renaming one would change all results.
    """

    missed: int = 0
    """The rules in the example's ``needs`` that were not stated, as bits."""
    near: int = 0
    """The similarity of the nearest demo in units of 1/60, summed over the stages."""
    tips: int = 0
    """The world's hidden rules (sorted) that were stated, as bits; used in the demo world."""
    penalty: int = 0
    """The amount to subtract from the probability, in hundredths."""

    def __add__(self, other: Facts) -> Facts:
        penalty = min(self.penalty + other.penalty, 63)
        return Facts(self.missed | other.missed, self.near + other.near, self.tips | other.tips, penalty)


def rules_in(text: str) -> list[str]:
    """The rules that a text states, without duplicates, in order and in the spelling of the pools."""
    rules = [f"{match[1].capitalize()} {match[2].lower()} {match[3].lower()}." for match in RULE.finditer(text)]
    return list(dict.fromkeys(rules))


def feedback_in(text: str) -> list[str]:
    """The rules that feedback in the text names as missing."""
    rules: list[str] = []
    for match in FEEDBACK.finditer(text):
        rules += rules_in(match[1])
    return list(dict.fromkeys(rules))


class World:
    """A world: its stages, hidden rules and examples, and the accuracy of programs in it."""

    def __init__(self, kind: str, predictors: int, seed: int) -> None:
        self.kind = kind
        self.predictors = predictors
        self.seed = seed
        self.stages = STAGES[predictors]
        draws = Draws("world", kind, predictors, seed)
        hidden = RULES if kind == "rule" else TIPS
        self.rules = [draws.sample(stage.pool, hidden) for stage in self.stages]
        self.hidden: set[str] = set().union(*self.rules)
        self._centres = [[draws.normal() for _ in range(3)] for _ in range(CLUSTERS)]
        self.examples: dict[str, Example] = {}
        for split, size in SIZES.items():
            for i in range(size):
                example = self._example(split, i)
                self.examples[example.id] = example

    @cached_property
    def tips(self) -> list[str]:
        return sorted(self.hidden)

    def split(self, name: str) -> list[Example]:
        return [example for example in self.examples.values() if example.id.startswith(name + "-")]

    def rows(self, name: str) -> list[dict[str, str]]:
        """The examples of a split, in the form in which the systems get them."""
        return [{"question": example.question, "answer": example.label} for example in self.split(name)]

    def _example(self, split: str, i: int) -> Example:
        name = f"{split}-{i:03}"
        draws = Draws("example", self.kind, self.predictors, self.seed, name)
        hidden_rules = sorted(self.hidden)
        needs: list[str] = []
        if self.kind == "rule":
            needs = draws.sample(hidden_rules, 1 + int(3 * draws.uniform()))
        centre = draws.choice(self._centres)
        point = tuple(c + 0.25 * draws.normal() for c in centre)
        truth, other = draws.sample(WORDS, 2)
        wrong = self.kind == "demo" and split == "train" and draws.uniform() < WRONG_LABEL_PROBABILITY
        question = f"[id:{name}] Which word goes with file {1000 + int(9000 * draws.uniform())}?"
        if draws.uniform() < REMARK_PROBABILITY:
            remark = draws.choice(needs or hidden_rules)
            question += f" A clerk remarks: {remark[0].lower()}{remark[1:]}"
        return Example(name, question, truth, other if wrong else truth, tuple(needs), point)

    # The accuracy of a program

    def facts(self, at: int, stated: Iterable[str], demos: Iterable[Sequence[Any]], example: Example) -> Facts:
        """The facts of a prompt of stage ``at``, from the rules that it states and its demos as (id, right)."""
        stated = set(stated)
        shown_demos = [(self.examples[name], right) for name, right in demos]
        if self.kind == "rule":
            own = self.rules[at]
            missed = sum(1 << bit for bit, rule in enumerate(example.needs) if rule in own and rule not in stated)
            return Facts(missed=missed, penalty=max(0, len(stated) - 10))
        near = max((_similarity(demo.point, example.point) for demo, right in shown_demos if right), default=0.0)
        wrong = sum(not right for _, right in shown_demos)
        penalty = min(30, 10 * wrong) + 2 * max(0, len(shown_demos) - 8)
        tips = sum(1 << bit for bit, rule in enumerate(self.tips) if rule in stated and rule in self.rules[at])
        return Facts(near=round(60 * near), tips=tips, penalty=penalty)

    def nearest(self, demos: Iterable[Sequence[Any]], example: Example) -> str | None:
        """The id of the nearest right demo; None in the rule world, where demos have no effect."""
        right_demos = [name for name, right in demos if right and self.kind == "demo"]
        return max(right_demos, key=lambda name: _similarity(self.examples[name].point, example.point), default=None)

    def accuracy(self, facts: Facts) -> float:
        """The probability of a right answer, from the facts of all stages together."""
        stages = len(self.stages)
        if self.kind == "rule":
            base = 0.15 if facts.missed else 0.95
            raw = base - facts.penalty / 100
        else:
            gains = 0.55 * facts.near / 60 + 0.1 * facts.tips.bit_count() / TIPS - facts.penalty / 100
            raw = 0.35 + gains / stages
        return min(0.98, max(0.02, raw))

    def expected(self, view: Sequence[Mapping[str, Any]], split: str = "test") -> float:
        """The expected accuracy of a program on a split. It is computed exactly, without any call."""
        stated = [rules_in(part["instruction"]) for part in view]
        examples = self.split(split)
        total = 0.0
        for example in examples:
            parts = (self.facts(i, stated[i], part["demos"], example) for i, part in enumerate(view))
            total += self.accuracy(sum(parts, Facts()))
        return total / len(examples)

    def base(self) -> float:
        """The expected accuracy of the program before any optimization."""
        return self.expected([{"instruction": stage.instruction, "demos": []} for stage in self.stages])

    def view(self, parts: Iterable[tuple[str, Iterable[Mapping[str, Any]]]]) -> list[dict[str, Any]]:
        """The view of a program given as (instruction, demos as dicts of fields) for each stage."""
        stages = []
        for at, (instruction, demos) in enumerate(parts):
            known = [self._demo(at, demo) for demo in demos]
            stages.append({"instruction": instruction, "demos": [demo for demo in known if demo is not None]})
        return stages

    def _demo(self, at: int, demo: Mapping[str, Any]) -> list[Any] | None:
        """A demo as [id, right]; None if a field is missing that an adapter needs to show it."""
        stage = self.stages[at]
        inputs = " ".join(str(demo[name]) for name in stage.inputs if demo.get(name) is not None)
        ids = ID.findall(inputs)
        reply = demo.get(stage.output)
        if not ids or reply is None:
            return None
        return [ids[-1], self.right(at, ids[-1], str(reply))]

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
        """The facts in a code; None if the code belongs to another example."""
        packed = int(code, 16) ^ self._mask(mark, name)
        if packed >> 34:
            return None
        return Facts(packed & 7, packed >> 3 & 255, packed >> 11 & 4095, packed >> 23 & 63)

    def _mask(self, mark: str, name: str) -> int:
        return Draws("mask", self.kind, self.predictors, self.seed, mark, name).bits() & 0xFFFFFFFFFF

    def judge(self, question: str, label: str, answer: str) -> tuple[float, str]:
        """The metric: exact match, with feedback that may name a missing rule."""
        if answer.strip() == label:
            return 1.0, "The answer is right."
        text = f"The answer is wrong; it should be {label}."
        name = ID.findall(question)[-1]
        codes = CODE.findall(answer)
        if not codes:
            return 0.0, text
        mark, code = codes[-1]
        facts = self.read(mark, name, code)
        if facts is None:
            return 0.0, text
        missing = self._missing(name, facts)
        draws = Draws("feedback", self.seed, name, answer)
        if missing and draws.uniform() < FEEDBACK_PROBABILITY:
            text += f" A rule is missing: {draws.choice(missing)}"
        return 0.0, text

    def _missing(self, name: str, facts: Facts) -> list[str]:
        if self.kind == "rule":
            return [rule for bit, rule in enumerate(self.examples[name].needs) if facts.missed >> bit & 1]
        return [rule for bit, rule in enumerate(self.tips) if not facts.tips >> bit & 1]


def _similarity(a: Sequence[float], b: Sequence[float]) -> float:
    return math.exp(-sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 1.2)
