"""COPRO: coordinate ascent on instructions, each round proposed from the best of those before.

Source: the optimizer of that name in DSPy (2023), which carries over Yang et al. 2023, "Large Language Models as
Optimizers" (OPRO, section 2: earlier instructions with their scores, the best last), to programs of several predictors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from dspynb.data import Prediction
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import begins_turn, cleaned, instruction_of
from dspynb.optimizers.core.optimizer import Optimizer
from dspynb.optimizers.core.successive_halving import stages
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


@dataclass
class _Tried:
    """What was tried for one predictor: instruction and prefix → score."""

    scores: dict[tuple[str, str | None], float] = field(default_factory=dict)

    def best(self, most: int) -> list[tuple[tuple[str, str | None], float]]:
        """The best few, the best last."""
        ranked = sorted(self.scores.items(), key=lambda item: item[1])
        return ranked[-most:]


@dataclass(frozen=True)
class _Plan:
    """``rows`` (all for None) that every candidate is tried on, how many a round, and how many of all go on to the
    other rows."""

    rows: list[int] | None
    breadth: int
    finalists: int

    def score(self, engine: Engine, candidate: Candidate) -> float:
        """The mean on these rows."""
        scores = engine.scores(candidate)
        rows = range(len(engine.val)) if self.rows is None else self.rows
        return sum(scores[row] for row in rows) / len(rows)


class COPRO(Optimizer):
    """Instructions (and, where the adapter begins the model's turn, the prefix of the output) by coordinate ascent.

    In each of ``depth`` rounds ``breadth`` instructions are tried for every predictor in turn, with the best so far for
    the others: first ``breadth - 1`` made from the predictor's own, then from the best that were tried, with scores,
    the best last, at ``init_temperature``. The candidates of a round are evaluated at the same time, equal texts once.
    Where a budget of metric calls is too small for all rounds on all rows, they are tried on a few rows, the same for
    all, and the best of all rounds are evaluated on all rows at the end.

    Without validation rows, the training rows judge (as in DSPy). Source: DSPy's COPRO, after Yang et al. 2023 (OPRO,
    arXiv:2309.03409), section 2.

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
        best, tried = {start: plan.score(engine, start)}, {path: _Tried() for path in engine.paths}
        for path in engine.paths:
            tried[path].scores[instruction_of(engine, start, path), None] = best[start]
        for depth in range(self.depth):
            self._steer(engine, plan, best, tried, await engine.step(depth + 1))
            proposed = await self._propose(engine, tried, depth, plan.breadth)
            for path in engine.paths:
                top = max(best, key=lambda c: best[c])
                made = [self._candidate(engine, top, path, texts, depth) for texts in proposed[path]]
                asked = [(c, engine.evaluate(c, plan.rows, step=depth + 1)) for c in dict.fromkeys(made)]
                for candidate, task in asked:
                    await task
                    best[candidate] = plan.score(engine, candidate)
                    part = candidate.part(path)
                    tried[path].scores[instruction_of(engine, candidate, path), part.prefix] = best[candidate]
        self._steer(engine, plan, best, tried, await engine.step(self.depth + 1))
        latest = [c for c in reversed(best) if c != start]  # of equal ones the latest: it was made knowing more
        latest.sort(key=lambda c: -best[c])
        for task in [engine.evaluate(c, step=self.depth + 1) for c in latest[: plan.finalists]]:
            await task

    def _steer(
        self,
        engine: Engine,
        plan: _Plan,
        best: dict[Candidate, float],
        tried: Mapping[str, _Tried],
        given: Sequence[Candidate],
    ) -> None:
        """Take a person's candidates for tried ones, and forget what was dropped."""
        for candidate in given:
            best[candidate] = plan.score(engine, candidate)
            for path in candidate.parts:
                texts = instruction_of(engine, candidate, path), candidate.part(path).prefix
                tried[path].scores[texts] = best[candidate]
        for candidate in [c for c in best if c not in engine.kept(best)]:
            del best[candidate]
            for path in candidate.parts:
                texts = instruction_of(engine, candidate, path), candidate.part(path).prefix
                if not any(texts == (instruction_of(engine, c, path), c.part(path).prefix) for c in best):
                    tried[path].scores.pop(texts, None)

    def _plan(self, engine: Engine) -> _Plan:
        """How the rows are used, so that all rounds fit into the budget."""
        a_round = len(engine.paths) * self.breadth
        most, rows = a_round * self.depth - len(engine.paths), len(engine.val)
        plan = stages(most, rows, engine.metric_calls_left())
        if len(plan) == 1 and plan[0][0] == most:
            return _Plan(None, self.breadth, 0)
        few, first = plan[0]
        order = list(range(rows))
        engine.random("rows").shuffle(order)
        breadth = max(1, self.breadth * few // most)
        return _Plan(order[:first], breadth, plan[-1][0] if len(plan) > 1 else 0)

    async def _propose(
        self, engine: Engine, tried: Mapping[str, _Tried], depth: int, breadth: int
    ) -> dict[str, list[tuple[str, str | None]]]:
        """New texts for each predictor; all are asked for at the same time."""
        count = max(1, breadth - 1) if depth == 0 else breadth
        asked = {path: [self._ask(engine, tried[path], path, depth, i) for i in range(count)] for path in engine.paths}
        return {path: [texts for task in tasks if (texts := _texts(await task))] for path, tasks in asked.items()}

    def _ask(self, engine: Engine, tried: _Tried, path: str, depth: int, number: int) -> Any:
        predictor = dict(engine.program.named_predictors())[path]
        given: dict[str, Any] = {"fields": predictor.signature.describe()}
        if depth == 0:
            given["basic_instruction"] = instruction_of(engine, engine.start, path)
        else:
            given["attempted_instructions"] = _attempts(tried.best(self.breadth))
        predict = (self._first if depth == 0 else self._next)[begins_turn(predictor)]
        key = f"round {depth + 1}, {path}, {number + 1}"
        return engine.propose(key, predict, given, number=number, temperature=self.init_temperature)

    def _candidate(
        self, engine: Engine, best: Candidate, path: str, texts: tuple[str, str | None], depth: int
    ) -> Candidate:
        instruction, prefix = texts
        changes: dict[str, Any] = {"instruction": instruction, **({"prefix": prefix} if prefix else {})}
        return engine.candidate(
            best.changed(path, **changes), origin=f"round {depth + 1}", step=depth + 1, parents=[best]
        )


def _attempts(best: Sequence[tuple[tuple[str, str | None], float]]) -> list[str]:
    lines = []
    for number, ((instruction, prefix), score) in enumerate(best, start=1):
        lines.append(f"Instruction #{number}: {instruction}")
        lines += [f"Prefix #{number}: {prefix}"] if prefix else []
        lines.append(f"Resulting Score #{number}: {score:.4g}")
    return lines


def _texts(made: Prediction | None) -> tuple[str, str | None] | None:
    """Instruction and prefix; None for an empty one."""
    if made is None or not (instruction := cleaned(made["proposed_instruction"])):
        return None
    prefix = cleaned(str(made.get("proposed_prefix_for_output_field") or ""))
    return instruction, prefix or None
