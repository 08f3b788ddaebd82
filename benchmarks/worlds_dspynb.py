"""One cell with an optimizer of dspynb: reads the cell as JSON from stdin, writes what was found to stdout.

Run by `optimizers.py`. The curve comes from the run's tables: the candidate that was best whenever that changed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import aiohttp  # noqa: F401  what the first call would import; no system's imports are in its seconds
from worlds import World

import dspynb as dn

IN_FLIGHT = 16


class One(dn.Module):
    """The program with one predictor."""

    def __init__(self, world: World) -> None:
        (self.answer,) = predictors(world)

    async def forward(self, question: str) -> Any:
        return await self.answer(question=question)


class Three(dn.Module):
    """The program with three."""

    def __init__(self, world: World) -> None:
        self.take, self.judge, self.answer = predictors(world)

    async def forward(self, question: str) -> Any:
        notes = (await self.take(question=question)).notes
        verdict = (await self.judge(question=question, notes=notes)).verdict
        return await self.answer(question=question, verdict=verdict)


def predictors(world: World) -> list[Any]:
    return [dn.Predict(signature(stage)) for stage in world.stages]


def signature(stage: Any) -> Any:
    """With the instruction as its own, as a docstring would be."""
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
_CALLED = {"random search": "BootstrapRandomSearch"}


def optimizer_of(name: str, metric: Any, options: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    """``demos`` is the most that a predictor may get, both kinds together as in DSPy's MIPROv2."""
    names, left_out = (_SIMBA, {"train", "val"}) if name == "SIMBA" else (_OPTIONS, {"train", "val", "demos"})
    given = {names.get(key, key): value for key, value in options.items() if key not in left_out}
    if "demos" in options and name != "SIMBA":
        given |= {"max_bootstrapped_demos": options["demos"], "max_labeled_demos": options["demos"]}
    if "num_trials" in given:
        given["auto"] = None
    return getattr(dn, _CALLED.get(name, name))(metric, **given, **common)


def view_of(world: World, program: Any) -> list[dict[str, Any]]:
    parts = [predictor for _, predictor in program.named_predictors()]
    return world.view((instruction_of(p), [dict(demo) for demo in p.demos]) for p in parts)


def instruction_of(predictor: Any) -> str:
    return str(predictor.instruction if predictor.instruction is not None else predictor.signature.instruction)


def curve_of(world: World, run: Any, paths: Iterable[str]) -> list[list[Any]]:
    """[runs, seconds, view] whenever the incumbent changed."""
    candidates = run.record.candidates
    start = next(iter(candidates.values()))
    curve, last = [], None
    for row in run.history.to_dict("records"):
        if row["best"] != last and row["best"] in candidates:
            last = row["best"]
            view = told(world, start.parts, candidates[last].parts, paths)
            curve.append([int(row["metric_calls"]), float(row["seconds"]), view])
    return curve


def told(
    world: World, start: Mapping[str, Any], parts: Mapping[str, Any], paths: Iterable[str]
) -> list[dict[str, Any]]:
    """The view of a candidate: what it says, else what the start says."""
    said = {path: {**start.get(path, {}), **parts.get(path, {})} for path in paths}
    return world.view((said[path].get("instruction", ""), said[path].get("demos", ())) for path in paths)


async def compiled(cell: Mapping[str, Any]) -> tuple[World, Any, Any, float]:
    """World, program, the run that has ended, and the seconds it took."""
    world, options = World(cell["world"], cell["predictors"], cell["seed"]), cell["options"]
    lm = dn.LM("openai/m", api_base=f"http://127.0.0.1:{cell['port']}/v1", cache=True)
    dn.configure(lm=lm, view="off", runs_dir=None)
    program = (One if cell["predictors"] == 1 else Three)(world)
    train, val = (world.rows(name)[: options.get(name, 60)] for name in ("train", "val"))
    common = {"budget": dn.Budget(metric_calls=cell["cap"]), "seed": cell["seed"], "concurrency": IN_FLIGHT}
    optimizer = optimizer_of(cell["system"], metric_of(world), options, common)
    began = time.perf_counter()
    run = optimizer.start(program, train, val=val)
    await run
    return world, program, run, time.perf_counter() - began


async def found(cell: Mapping[str, Any]) -> dict[str, Any]:
    world, program, run, seconds = await compiled(cell)
    paths = [path for path, _ in program.named_predictors()]
    return {"seconds": seconds, "final": view_of(world, run.best), "curve": curve_of(world, run, paths)}


def main() -> None:
    print(json.dumps(asyncio.run(found(json.load(sys.stdin)))))


if __name__ == "__main__":
    main()
