"""Run one cell with an optimizer of dspynb: reads the cell as JSON from stdin, and writes its result to stdout.

`optimizers.py` starts this script. The curve comes from the run's tables: it has the best candidate at each change.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import aiohttp  # noqa: F401  the first call would import it; seconds must not include imports
from worlds import World

import dspynb as dn

IN_FLIGHT = 16


class OneStage(dn.Module):
    """The program with one predictor."""

    def __init__(self, world: World) -> None:
        (self.answer,) = predictors(world)

    async def forward(self, question: str) -> Any:
        return await self.answer(question=question)


class ThreeStages(dn.Module):
    """The program with three predictors."""

    def __init__(self, world: World) -> None:
        self.take, self.judge, self.answer = predictors(world)

    async def forward(self, question: str) -> Any:
        notes = (await self.take(question=question)).notes
        verdict = (await self.judge(question=question, notes=notes)).verdict
        return await self.answer(question=question, verdict=verdict)


def predictors(world: World) -> list[Any]:
    return [dn.Predict(signature(stage)) for stage in world.stages]


def signature(stage: Any) -> Any:
    """The signature of a stage, with its instruction as a class docstring would set it."""
    return dn.Predict(f"{', '.join(stage.inputs)} -> {stage.output}").signature.with_instruction(stage.instruction)


def metric_of(world: World) -> Callable[..., Any]:
    def metric(row: Any, prediction: Any, trace: Any = None) -> Any:  # noqa: ARG001
        score, feedback = world.judge(row["question"], row["answer"], str(prediction["answer"]))
        return dn.Score(score, feedback=feedback)

    return metric


_OPTIONS = {
    "bootstrapped": "max_bootstrapped_demos",
    "labeled": "max_labeled_demos",
    "candidates": "num_candidates",
    "trials": "num_trials",
    "minibatch": "minibatch_size",
    "steps": "full_eval_steps",
}
_SIMBA = {**_OPTIONS, "bsize": "minibatch_size", "steps": "max_steps", "demos": "max_demos"}
_CLASSES = {"random search": "BootstrapRandomSearch"}


def optimizer_of(name: str, metric: Any, options: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    """The optimizer of a cell. ``demos`` is the maximum per predictor for both kinds, as in DSPy's MIPROv2."""
    names = _SIMBA if name == "SIMBA" else _OPTIONS
    settings = {names.get(key, key): value for key, value in options.items() if key not in {"train", "val"}}
    if "demos" in settings:
        demos = settings.pop("demos")
        settings |= {"max_bootstrapped_demos": demos, "max_labeled_demos": demos}
    if "num_trials" in settings:
        settings["auto"] = None
    return getattr(dn, _CLASSES.get(name, name))(metric, **settings, **common)


def view_of(world: World, program: Any) -> list[dict[str, Any]]:
    parts = []
    for _, predictor in program.named_predictors():
        parts.append((instruction_of(predictor), [dict(demo) for demo in predictor.demos]))
    return world.view(parts)


def instruction_of(predictor: Any) -> str:
    if predictor.instruction is not None:
        return str(predictor.instruction)
    return str(predictor.signature.instruction)


def curve_of(world: World, run: Any, paths: Iterable[str]) -> list[list[Any]]:
    """The incumbents of a run: [runs, seconds, view] at each change."""
    candidates = run.record.candidates
    start = next(iter(candidates.values()))
    curve = []
    last = None
    for row in run.history.to_dict("records"):
        if row["best"] != last and row["best"] in candidates:
            last = row["best"]
            view = candidate_view(world, start.parts, candidates[last].parts, paths)
            curve.append([int(row["metric_calls"]), float(row["seconds"]), view])
    return curve


def candidate_view(
    world: World, start: Mapping[str, Any], parts: Mapping[str, Any], paths: Iterable[str]
) -> list[dict[str, Any]]:
    """The view of a candidate. Parts that it does not change are those of the start."""
    stages = []
    for path in paths:
        part = {**start.get(path, {}), **parts.get(path, {})}
        stages.append((part.get("instruction", ""), part.get("demos", ())))
    return world.view(stages)


async def compile_program(cell: Mapping[str, Any]) -> tuple[World, Any, Any, float]:
    """Run the optimizer of a cell; returns world, program, the ended run, and its seconds."""
    world = World(cell["world"], cell["predictors"], cell["seed"])
    options = cell["options"]
    lm = dn.LM("openai/m", api_base=f"http://127.0.0.1:{cell['port']}/v1", cache=True)
    dn.configure(lm=lm, view="off", runs_dir=None)
    program = (OneStage if cell["predictors"] == 1 else ThreeStages)(world)
    train, val = (world.rows(name)[: options.get(name, 60)] for name in ("train", "val"))
    common = {"budget": dn.Budget(metric_calls=cell["cap"]), "seed": cell["seed"], "concurrency": IN_FLIGHT}
    optimizer = optimizer_of(cell["system"], metric_of(world), options, common)
    start = time.perf_counter()
    run = optimizer.start(program, train, val=val)
    await run
    return world, program, run, time.perf_counter() - start


async def run_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    world, program, run, seconds = await compile_program(cell)
    paths = [path for path, _ in program.named_predictors()]
    return {"seconds": seconds, "final": view_of(world, run.best), "curve": curve_of(world, run, paths)}


def main() -> None:
    print(json.dumps(asyncio.run(run_cell(json.load(sys.stdin)))))


if __name__ == "__main__":
    main()
