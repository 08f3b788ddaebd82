"""Grounded proposals of instructions: the model sees a summary of the data, the program, its demos, and a tip.

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
from dspynb.lm.protocol import LMProtocol
from dspynb.modules.excerpts import excerpt, labelled
from dspynb.modules.predict import Predict
from dspynb.modules.scorer import source_of
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import instruction_of, strip_quotes
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
ProposalTask = asyncio.Task[Prediction | None]
_BATCH_SIZE = 10
"""The number of training rows in a request for observations."""
_MAX_BATCHES = 10
_MAX_COMPLETE = 5
"""No more observations are requested after the model has answered COMPLETE so often."""
_MAX_DEMOS = 3
"""The number of demos in a proposal, at most."""


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
    """Writes instructions for each predictor. A failed proposal is left out, and counts for the optimizer's
    ``patience``."""

    def __init__(self, lm: LMProtocol | str | None, temperature: float, shown_rows: int) -> None:
        self.temperature = temperature
        self.shown_rows = shown_rows
        self._dataset = Predict(DescribeDataset, lm=lm)
        self._summary = Predict(SummarizeObservations, lm=lm)
        self._program = Predict(DescribeProgram, lm=lm)
        self._module = Predict(DescribeModule, lm=lm)
        self._instruction = Predict(GenerateModuleInstruction, lm=lm)

    def predictors(self) -> Mapping[str, Predict]:
        """The predictors by the name that tables show for them."""
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
        inputs_by_path = await self._describe(engine, demos)
        tasks_by_path = {}
        for path, inputs in inputs_by_path.items():
            tasks_by_path[path] = [
                self._propose_instruction(engine, path, inputs, demos[path], number) for number in range(1, count)
            ]
        instructions = {}
        for path, tasks in tasks_by_path.items():
            instructions[path] = [instruction_of(engine, engine.start, path)]
            for task in tasks:
                text = strip_quotes(await _output(task, "proposed_instruction"))
                if text:
                    instructions[path].append(text)
        return instructions

    async def _describe(
        self, engine: Engine, demos: Mapping[str, Sequence[Sequence[Demo]]]
    ) -> dict[str, dict[str, Any]]:
        """Describe the data set, the program and each module. Returns path → the inputs that all proposals of an
        instruction share."""
        first_demos = demos.get(engine.paths[0], [])
        program: dict[str, Any] = {"program_code": _program_code(engine)}
        program_inputs = {**program, "program_example": _demos_text(first_demos)}
        program_task = self._propose(engine, "program", self._program, program_inputs)
        dataset = await self._summarize_dataset(engine)
        program["program_description"] = await _output(program_task, "program_description", "Not available")
        module_tasks = {}
        for path in engine.paths:
            module_inputs = {**program, "module": _module_text(engine, path)}
            module_tasks[path] = self._propose(engine, f"module, {path}", self._module, module_inputs)
        inputs_by_path = {}
        for path, task in module_tasks.items():
            inputs_by_path[path] = {
                **program,
                "dataset_description": dataset,
                "module": _module_text(engine, path),
                "module_description": await _output(task, "module_description", "Not provided"),
            }
        return inputs_by_path

    async def _summarize_dataset(self, engine: Engine) -> str:
        """Request observations on batches of training rows, each with the observations so far, then a summary."""
        observations = ""
        complete = 0
        batches = range(0, len(engine.train), _BATCH_SIZE)[:_MAX_BATCHES]
        for number, first in enumerate(batches, start=1):
            rows = engine.train[first : first + _BATCH_SIZE]
            inputs = {"examples": _rows_text(rows), "prior_observations": observations or "None yet."}
            task = self._propose(engine, f"dataset, {number}", self._dataset, inputs)
            text = await _output(task, "observations")
            if text[: len("COMPLETE")].upper() == "COMPLETE":
                complete += 1
                if complete >= _MAX_COMPLETE:
                    break
                continue
            observations = f"{observations} {text}".strip()
        inputs = {"observations": observations or "None."}
        task = self._propose(engine, "dataset summary", self._summary, inputs)
        return await _output(task, "summary", observations)

    def _propose_instruction(
        self, engine: Engine, path: str, inputs: Mapping[str, Any], sets: Sequence[Sequence[Demo]], number: int
    ) -> ProposalTask:
        """Submit proposal ``number`` of an instruction for a predictor, with a demo set and a tip of its own."""
        rng = engine.random("tip", path, number)
        if self.shown_rows:
            rows = engine.random("rows", path, number).sample(engine.train, min(self.shown_rows, len(engine.train)))
            dataset = f"{inputs['dataset_description']}\n\nExamples:\n{_rows_text(rows)}"
            inputs = {**inputs, "dataset_description": dataset}
        first_set = number % len(sets) if sets else 0
        inputs = {
            **inputs,
            "task_demos": _demos_text([*sets[first_set:], *sets[:first_set]]),
            "basic_instruction": instruction_of(engine, engine.start, path),
            "tip": TIPS[rng.choice(list(TIPS))] or "None.",
        }
        return self._propose(engine, f"instruction, {path}, {number}", self._instruction, inputs, number)

    def _propose(
        self, engine: Engine, key: str, predict: Predict, inputs: Mapping[str, Any], number: int = 0
    ) -> ProposalTask:
        return engine.propose(key, predict, inputs, number=number, temperature=self.temperature)


async def _output(task: ProposalTask, name: str, default: str = "") -> str:
    """An output of a proposal; the default where it failed."""
    reply = await task
    return default if reply is None else str(reply[name])


def _program_code(engine: Engine) -> str:
    """The predictors with their fields, and the source of the program's ``forward``, where there is one."""
    lines = [f"{path}: {_module_text(engine, path)}" for path in engine.paths]
    program = engine.program
    if not isinstance(program, Predict):
        source = source_of(type(program).forward)
        if source:
            lines.append(source)
    return "\n".join(lines)


def _module_text(engine: Engine, path: str) -> str:
    predictor = dict(engine.program.named_predictors())[path]
    return f"{type(predictor).__name__}({predictor.signature.describe()})"


def _demos_text(sets: Sequence[Sequence[Demo]]) -> str:
    """The first few different demos of the sets, in their order."""
    demos: dict[str, Demo] = {}
    for demo_set in sets:
        for demo in demo_set:
            demos[json.dumps(demo, sort_keys=True, default=repr)] = demo
    texts = [_demo_text(demo) for demo in list(demos.values())[:_MAX_DEMOS]]
    return "\n\n".join(texts) or "No task demos provided."


def _demo_text(demo: Demo) -> str:
    return "\n".join(labelled(name, value, 500) for name, value in demo.items())


def _rows_text(rows: Sequence[Example]) -> str:
    return "\n".join(excerpt(json.dumps(plain(row.to_dict()), ensure_ascii=False), 1000) for row in rows)
