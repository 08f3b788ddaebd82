"""COPRO: coordinate ascent on instructions. Each round proposes instructions from the best of the rounds before.

Source: the optimizer of that name in DSPy (2023), which carries over Yang et al. 2023, "Large Language Models as
Optimizers" (OPRO, section 2: earlier instructions with their scores, the best last), to programs of several predictors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from dspynb.data import Prediction
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import adapter_begins_turn, instruction_of, strip_quotes
from dspynb.optimizers.core.optimizer import Optimizer
from dspynb.optimizers.core.successive_halving import plan_stages
from dspynb.options import Number, PositiveInt, Whole
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

__all__ = ["COPRO"]


class GenerateInstruction(Signature):
    """You are an instruction optimizer for large language models. I will give you the instruction of a task, with the
    names of its fields. Propose an instruction that will lead a good language model to perform the task well. Don't be
    afraid to be creative."""

    fields: str = Input(desc="inputs -> outputs of the task")
    basic_instruction: str = Input(desc="The initial instruction before optimization")
    proposed_instruction: str = Output(desc="The improved instruction for the language model")


class GenerateInstructionGivenAttempts(Signature):
    """You are an instruction optimizer for large language models. I will give some task instructions I've tried, along
    with their corresponding validation scores. The instructions are arranged in increasing order based on their scores,
    where higher scores indicate better quality.

    Propose a new instruction that will lead a good language model to perform the task even better. Don't be afraid to
    be creative."""

    fields: str = Input(desc="inputs -> outputs of the task")
    attempted_instructions: list[str] = Input()
    proposed_instruction: str = Output(desc="The improved instruction for the language model")


_PREFIX = Output(desc="The string at the end of the prompt, which will help the model start solving the task")


Texts = tuple[str, str | None]
"""An instruction and a prefix."""


@dataclass
class _Attempts:
    """The texts that were tried for one predictor, with their scores."""

    scores: dict[Texts, float] = field(default_factory=dict)

    def best(self, count: int) -> list[tuple[Texts, float]]:
        """The best few, the best last."""
        ranked = sorted(self.scores.items(), key=lambda item: item[1])
        return ranked[-count:]


@dataclass(frozen=True)
class _Plan:
    """How the validation rows are used. ``rows``: the rows on which every candidate runs, None for all. ``breadth``:
    candidates of a round. ``finalists``: how many of all candidates run on the other rows at the end."""

    rows: list[int] | None
    breadth: int
    finalists: int

    def score(self, engine: Engine, candidate: Candidate) -> float:
        """The mean score on ``rows``."""
        scores = engine.scores(candidate)
        rows = range(len(engine.val)) if self.rows is None else self.rows
        return sum(scores[row] for row in rows) / len(rows)


@dataclass
class _State:
    """The state of the search: the scores of all candidates, and path → the texts that were tried for a predictor."""

    plan: _Plan
    scores: dict[Candidate, float]
    attempts: dict[str, _Attempts]


class COPRO(Optimizer):
    """Improves instructions by coordinate ascent, and prefixes of the output where the adapter begins the model's turn.

    In each of ``depth`` rounds, ``breadth`` instructions are tried for every predictor in turn, with the best ones so
    far for the other predictors. In the first round, ``breadth - 1`` are written from the predictor's own instruction;
    later rounds see the best instructions with their scores, the best last. They are sampled at ``init_temperature``.
    The candidates of a predictor are evaluated at the same time, equal texts once. Where a budget of metric calls is
    too small for all rounds on all rows, all candidates run on the same few rows, and the best of all rounds run on all
    rows at the end.

    Without validation rows, the training rows serve as both (as in DSPy). Source: DSPy's COPRO, after Yang et al. 2023
    (OPRO, arXiv:2309.03409), section 2.

    >>> def answer(request):  # right once it is told to use digits
    ...     return "answer: 4" if "digits" in request.messages[0]["content"] else "answer: four"
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    >>> writer = dn.FunctionLM(lambda request: "proposed_instruction: Answer in digits.")
    >>> opt = dn.COPRO(dn.metrics.exact_match(), breadth=2, depth=1, prompt_lm=writer)
    >>> opt.compile_sync(program, [{"question": "2+2?", "answer": "4"}]).instruction
    'Answer in digits.'
    """

    kind: ClassVar[str] = "copro"

    breadth: Annotated[int, Whole(2)] = 10
    depth: PositiveInt = 3
    init_temperature: Annotated[float, Number(0)] = 1.4

    def __post_init__(self) -> None:
        self._first = {False: Predict(GenerateInstruction, lm=self.prompt_lm)}
        self._next = {False: Predict(GenerateInstructionGivenAttempts, lm=self.prompt_lm)}
        for kinds in (self._first, self._next):
            with_prefix = kinds[False].signature.append("proposed_prefix_for_output_field", _PREFIX)
            kinds[True] = Predict(with_prefix, lm=self.prompt_lm)

    def proposers(self) -> Mapping[str, Predict]:
        return {
            "copro.first": self._first[False],
            "copro.first_with_prefix": self._first[True],
            "copro.next": self._next[False],
            "copro.next_with_prefix": self._next[True],
        }

    async def search(self, engine: Engine) -> None:
        start = (await engine.evaluate(engine.start)).candidate
        plan = self._plan(engine)
        state = _State(plan, {start: plan.score(engine, start)}, {path: _Attempts() for path in engine.paths})
        for path in engine.paths:
            state.attempts[path].scores[instruction_of(engine, start, path), None] = state.scores[start]
        for depth in range(self.depth):
            _apply_interventions(engine, state, await engine.step(depth + 1))
            proposed = await self._propose(engine, state, depth)
            for path in engine.paths:
                await self._try_texts(engine, state, path, proposed[path], depth)
        _apply_interventions(engine, state, await engine.step(self.depth + 1))
        # Of equal candidates the latest comes first, since it was proposed with the most knowledge.
        ranked = [c for c in reversed(state.scores) if c != start]
        ranked.sort(key=lambda c: -state.scores[c])
        tasks = [engine.evaluate(c, step=self.depth + 1) for c in ranked[: plan.finalists]]
        for task in tasks:
            await task

    async def _try_texts(self, engine: Engine, state: _State, path: str, proposed: Sequence[Texts], depth: int) -> None:
        """Evaluate the best candidate so far with each of the proposed texts for a predictor."""
        best = max(state.scores, key=lambda c: state.scores[c])
        candidates = [self._candidate(engine, best, path, texts, depth) for texts in proposed]
        tasks = {c: engine.evaluate(c, state.plan.rows, step=depth + 1) for c in dict.fromkeys(candidates)}
        for candidate, task in tasks.items():
            await task
            score = state.plan.score(engine, candidate)
            state.scores[candidate] = score
            state.attempts[path].scores[_texts_of(engine, candidate, path)] = score

    def _plan(self, engine: Engine) -> _Plan:
        """Plan the use of the rows so that all rounds fit into the budget."""
        per_round = len(engine.paths) * self.breadth
        total = per_round * self.depth - len(engine.paths)
        row_count = len(engine.val)
        stages = plan_stages(total, row_count, engine.metric_calls_left())
        candidates, first_rows = stages[0]
        if len(stages) == 1 and candidates == total:
            return _Plan(None, self.breadth, 0)
        order = list(range(row_count))
        engine.random("rows").shuffle(order)
        breadth = max(1, self.breadth * candidates // total)
        finalists = 0
        if len(stages) > 1:
            finalists, _ = stages[-1]
        return _Plan(order[:first_rows], breadth, finalists)

    async def _propose(self, engine: Engine, state: _State, depth: int) -> dict[str, list[Texts]]:
        """Path → new texts. All proposals of a round are submitted at the same time."""
        count = state.plan.breadth
        if depth == 0:
            count = max(1, count - 1)  # the predictor's own instruction is one of the first round's
        tasks = {}
        for path in engine.paths:
            attempts = state.attempts[path]
            tasks[path] = [self._submit_proposal(engine, attempts, path, depth, number) for number in range(count)]
        proposed: dict[str, list[Texts]] = {}
        for path, path_tasks in tasks.items():
            proposed[path] = []
            for task in path_tasks:
                texts = _texts_from(await task)
                if texts is not None:
                    proposed[path].append(texts)
        return proposed

    def _submit_proposal(
        self, engine: Engine, attempts: _Attempts, path: str, depth: int, number: int
    ) -> asyncio.Task[Prediction | None]:
        predictor = dict(engine.program.named_predictors())[path]
        with_prefix = adapter_begins_turn(predictor)
        inputs: dict[str, Any] = {"fields": predictor.signature.describe()}
        if depth == 0:
            predict = self._first[with_prefix]
            inputs["basic_instruction"] = instruction_of(engine, engine.start, path)
        else:
            predict = self._next[with_prefix]
            inputs["attempted_instructions"] = _attempt_lines(attempts.best(self.breadth))
        key = f"round {depth + 1}, {path}, {number + 1}"
        return engine.propose(key, predict, inputs, number=number, temperature=self.init_temperature)

    def _candidate(self, engine: Engine, parent: Candidate, path: str, texts: Texts, depth: int) -> Candidate:
        instruction, prefix = texts
        changes: dict[str, Any] = {"instruction": instruction}
        if prefix:
            changes["prefix"] = prefix
        parts = parent.changed(path, **changes)
        return engine.candidate(parts, origin=f"round {depth + 1}", step=depth + 1, parents=[parent])


def _apply_interventions(engine: Engine, state: _State, candidates: Sequence[Candidate]) -> None:
    """Add a person's candidates to the tried ones, and remove dropped ones."""
    for candidate in candidates:
        score = state.plan.score(engine, candidate)
        state.scores[candidate] = score
        for path in candidate.parts:
            state.attempts[path].scores[_texts_of(engine, candidate, path)] = score
    active = engine.active(state.scores)
    for candidate in [c for c in state.scores if c not in active]:
        del state.scores[candidate]
        for path in candidate.parts:
            texts = _texts_of(engine, candidate, path)
            if not any(texts == _texts_of(engine, other, path) for other in state.scores):
                state.attempts[path].scores.pop(texts, None)


def _texts_of(engine: Engine, candidate: Candidate, path: str) -> Texts:
    """The instruction and prefix of a predictor under a candidate."""
    return instruction_of(engine, candidate, path), candidate.part(path).prefix


def _attempt_lines(best: Sequence[tuple[Texts, float]]) -> list[str]:
    lines = []
    for number, ((instruction, prefix), score) in enumerate(best, start=1):
        lines.append(f"Instruction #{number}: {instruction}")
        if prefix:
            lines.append(f"Prefix #{number}: {prefix}")
        lines.append(f"Resulting Score #{number}: {score:.4g}")
    return lines


def _texts_from(reply: Prediction | None) -> Texts | None:
    """The texts of a proposal; None where it failed, or its instruction is empty."""
    if reply is None:
        return None
    instruction = strip_quotes(reply["proposed_instruction"])
    if not instruction:
        return None
    prefix = strip_quotes(str(reply.get("proposed_prefix_for_output_field") or ""))
    return instruction, prefix or None
