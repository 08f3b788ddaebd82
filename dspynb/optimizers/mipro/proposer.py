"""Grounded proposals of instructions: from a summary of the data, the program, its demos, and a tip.

Source: Opsahl-Ong et al. 2024, "Optimizing Instructions and Demonstrations for Multi-Stage Language Model Programs",
section 4.1 and appendix C. The program and each of its modules are described once a run, and not once a proposal.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dspynb.data import Example, Prediction
from dspynb.events import plain
from dspynb.modules.excerpts import excerpt, labelled
from dspynb.modules.predict import Predict
from dspynb.modules.scorer import source_of
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import cleaned, instruction_of
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.signature import Signature

__all__ = ["TIPS", "GroundedProposer"]

TIPS = {
    "none": "",
    "creative": "Don't be afraid to be creative when creating the new instruction!",
    "simple": "Keep the instruction clear and concise.",
    "description": "Make sure your instruction is very informative and descriptive.",
    "high_stakes": "The instruction should include a high stakes scenario in which the LM must solve the task!",
    "persona": 'Include a persona that is relevant to the task in the instruction (ie. "You are a ...")',
}
Demo = Mapping[str, Any]
Asked = asyncio.Task[Prediction | None]
_A_BATCH, _MOST_BATCHES, _ENOUGH = 10, 10, 5
_SHOWN_DEMOS = 3


class DescribeDataset(Signature):
    """Given several examples from a dataset please write observations about trends that hold for most or all of the
    samples. Some areas you may consider: topics, content, syntax, conciseness, etc. Make an educated guess as to the
    nature of the task this dataset will enable. If prior observations are comprehensive already, say COMPLETE."""

    examples: str = Input(desc="Sample data points from the dataset")
    prior_observations: str = Input(desc="Some prior observations made about the data, or nothing")
    observations: str = Output(desc="What holds true for most or all of the data you observed")


class SummarizeObservations(Signature):
    """Given a series of observations about a dataset, summarize them into a brief 2-3 sentence summary which highlights
    only the most important details."""

    observations: str = Input(desc="Observations made about the dataset")
    summary: str = Output(desc="Two to three sentences of only the most significant highlights")


class DescribeProgram(Signature):
    """Below is a pipeline that solves tasks with calls to language models. Describe what type of task it appears to be
    designed to solve, and how it appears to work."""

    program_code: str = Input(desc="The language model program")
    program_example: str = Input(desc="An example of the program in use")
    program_description: str = Output(desc="What task the program is designed to solve, and how it goes about it")


class DescribeModule(Signature):
    """Below is a pipeline that solves tasks with calls to language models. Describe the purpose of the specified module
    in this pipeline."""

    program_code: str = Input(desc="The language model program")
    program_description: str = Input(desc="What the program is designed to solve, and how it goes about it")
    module: str = Input(desc="The module to describe")
    module_description: str = Output(desc="The module's role in the broader program")


class GenerateModuleInstruction(Signature):
    """Use the information below to learn about a task that we are trying to solve using calls to an LM, then generate a
    new instruction that will be used to prompt a Language Model to better solve the task."""

    dataset_description: str = Input(desc="A description of the dataset that we are using")
    program_code: str = Input(desc="The language model program")
    program_description: str = Input(desc="What the program is designed to solve, and how it goes about it")
    module: str = Input(desc="The module to create an instruction for")
    module_description: str = Input(desc="The module's role in the broader program")
    task_demos: str = Input(desc="Example inputs/outputs of our module")
    basic_instruction: str = Input(desc="Basic instruction")
    tip: str = Input(desc="A suggestion for how to go about generating the new instruction")
    proposed_instruction: str = Output(
        desc="Propose an instruction that will be used to prompt a Language Model to perform this task"
    )


class GroundedProposer:
    """Writes instructions for each predictor. What fails is left out, and counts (``patience`` of the optimizer)."""

    def __init__(self, lm: Any, temperature: float, shown_rows: int) -> None:
        self.temperature, self.shown_rows = temperature, shown_rows
        self._dataset, self._summary = Predict(DescribeDataset, lm=lm), Predict(SummarizeObservations, lm=lm)
        self._program, self._module = Predict(DescribeProgram, lm=lm), Predict(DescribeModule, lm=lm)
        self._instruction = Predict(GenerateModuleInstruction, lm=lm)

    def predictors(self) -> Mapping[str, Predict]:
        """By the name that tables show."""
        return {
            "proposer.describe_dataset": self._dataset,
            "proposer.summarize": self._summary,
            "proposer.describe_program": self._program,
            "proposer.describe_module": self._module,
            "proposer.instruction": self._instruction,
        }

    async def __call__(
        self, engine: Engine, demos: Mapping[str, Sequence[Sequence[Demo]]], count: int
    ) -> dict[str, list[str]]:
        """Path → ``count`` instructions at most, the predictor's own first. ``demos``: path → demo sets to show."""
        code = _code_of(engine)
        program = self._ask(
            engine, "program", self._program, {"program_code": code, "program_example": _some(engine, demos)}
        )
        dataset = await self._dataset_summary(engine)
        about = {"program_code": code}
        about["program_description"] = await _said(program, "program_description", "Not available")
        modules = {path: self._describe(engine, path, about) for path in engine.paths}
        shared = {**about, "dataset_description": dataset}
        described = {path: await _said(task, "module_description", "Not provided") for path, task in modules.items()}
        asked = {}
        for path in engine.paths:
            told = {**shared, "module": _module_of(engine, path)}
            told["module_description"] = described[path]
            asked[path] = [self._propose(engine, path, told, demos[path], i) for i in range(1, count)]
        return {
            path: [
                instruction_of(engine, engine.start, path),
                *[text for task in tasks if (text := cleaned(await _said(task, "proposed_instruction")))],
            ]
            for path, tasks in asked.items()
        }

    def _propose(self, engine: Engine, path: str, told: Mapping[str, Any], sets: Sequence[Any], number: int) -> Asked:
        chance = engine.random("tip", path, number)
        if self.shown_rows:
            rows = engine.random("rows", path, number).sample(engine.train, min(self.shown_rows, len(engine.train)))
            told = {**told, "dataset_description": f"{told['dataset_description']}\n\nExamples:\n{_rows_text(rows)}"}
        inputs = {
            **told,
            "task_demos": _demos_text([*sets[number % len(sets) :], *sets[: number % len(sets)]] if sets else []),
            "basic_instruction": instruction_of(engine, engine.start, path),
            "tip": TIPS[chance.choice(list(TIPS))] or "None.",
        }
        key = f"instruction, {path}, {number}"
        return engine.propose(key, self._instruction, inputs, number=number, temperature=self.temperature)

    def _describe(self, engine: Engine, path: str, about: Mapping[str, Any]) -> Asked:
        return self._ask(engine, f"module, {path}", self._module, {**about, "module": _module_of(engine, path)})

    def _ask(self, engine: Engine, key: str, predict: Predict, inputs: Mapping[str, Any]) -> Asked:
        return engine.propose(key, predict, inputs, temperature=self.temperature)

    async def _dataset_summary(self, engine: Engine) -> str:
        """Observations batch by batch, each seeing those before, then a summary of them."""
        observations, complete = "", 0
        batches = range(0, len(engine.train), _A_BATCH)[:_MOST_BATCHES]
        for number, first in enumerate(batches):
            rows = engine.train[first : first + _A_BATCH]
            given = {"examples": _rows_text(rows), "prior_observations": observations or "None yet."}
            said = await _said(self._ask(engine, f"dataset, {number + 1}", self._dataset, given), "observations")
            if said[: len("COMPLETE")].upper() == "COMPLETE":
                complete += 1
                if complete >= _ENOUGH:
                    break
                continue
            observations = f"{observations} {said}".strip()
        given = {"observations": observations or "None."}
        return await _said(self._ask(engine, "dataset summary", self._summary, given), "summary", observations)


async def _said(asked: Asked, name: str, default: str = "") -> str:
    """An output of a proposal; the default where it failed."""
    found = await asked
    return default if found is None else str(found[name])


def _code_of(engine: Engine) -> str:
    lines = [f"{path}: {_module_of(engine, path)}" for path in engine.paths]
    program = engine.program
    source = None if isinstance(program, Predict) else source_of(type(program).forward)
    return "\n".join([*lines, *([source] if source else [])])


def _module_of(engine: Engine, path: str) -> str:
    predictor = dict(engine.program.named_predictors())[path]
    return f"{type(predictor).__name__}({predictor.signature.describe()})"


def _some(engine: Engine, demos: Mapping[str, Sequence[Any]]) -> str:
    first = engine.paths[0]
    return _demos_text(demos.get(first, []))


def _demos_text(sets: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """The first few demos of the sets, in their order."""
    shown = list({json.dumps(d, sort_keys=True, default=repr): d for some in sets for d in some}.values())
    texts = ["\n".join(labelled(name, value, 500) for name, value in demo.items()) for demo in shown[:_SHOWN_DEMOS]]
    return "\n\n".join(texts) or "No task demos provided."


def _rows_text(rows: Sequence[Example]) -> str:
    return "\n".join(excerpt(json.dumps(plain(row.to_dict()), ensure_ascii=False), 1000) for row in rows)
