"""Run one cell with an optimizer of DSPy 3.4.1: reads the cell as JSON from stdin, and writes its result to stdout.

`optimizers.py` starts this script in an environment with ``pip install dspy[optuna]==3.4.1``. Curves come from
`dspy.Evaluate`: the programs of COPRO, MIPROv2 and random search compete by their score on the whole set, so the
incumbent is the first program with the best score. The server's counters say how many runs it had cost by then.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable
from typing import Any

warnings.simplefilter("ignore")

import dspy  # noqa: E402  # after the filter for its warnings
import litellm  # noqa: E402, F401  the first call would import it; seconds must not include imports
from worlds import World  # noqa: E402

THREADS = 8


class OneStage(dspy.Module):
    """The program with one predictor."""

    def __init__(self, world: World) -> None:
        super().__init__()
        (stage,) = world.stages
        self.answer = dspy.Predict(signature(stage))

    def forward(self, question: str) -> Any:
        return self.answer(question=question)


class ThreeStages(dspy.Module):
    """The program with three predictors."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.take, self.judge, self.answer = (dspy.Predict(signature(stage)) for stage in world.stages)

    def forward(self, question: str) -> Any:
        notes = self.take(question=question).notes
        verdict = self.judge(question=question, notes=notes).verdict
        return self.answer(question=question, verdict=verdict)


def signature(stage: Any) -> Any:
    return dspy.Signature(f"{', '.join(stage.inputs)} -> {stage.output}", stage.instruction)


class Log:
    """The incumbents as [runs, seconds, view], one for each evaluation on the whole set with a new best score."""

    def __init__(self, world: World, port: int, whole: int) -> None:
        self.world = world
        self.port = port
        self.whole = whole
        self.start = time.perf_counter()
        self.best = -1.0
        self.curve: list[list[Any]] = []

    def runs(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats") as reply:  # loopback
            return int(json.load(reply)["runs"])

    def view(self, program: Any) -> list[dict[str, Any]]:
        return self.world.view((p.signature.instructions, map(dict, p.demos)) for p in program.predictors())

    def add(self, program: Any, runs: int | None = None) -> None:
        seconds = time.perf_counter() - self.start
        if runs is None:
            runs = self.runs()
        self.curve.append([runs, seconds, self.view(program)])

    def watch_evaluate(self) -> None:
        original = dspy.Evaluate.__call__

        def watched(evaluate: Any, program: Any, metric: Any = None, devset: Any = None, **more: Any) -> Any:
            result = original(evaluate, program, metric, devset, **more)
            whole = len(evaluate.devset if devset is None else devset) >= self.whole
            if whole and result.score > self.best:
                self.best = result.score
                self.add(program)
            return result

        dspy.Evaluate.__call__ = watched


def copro(program: Any, train: list[Any], _val: list[Any], metric: Any, options: dict[str, Any]) -> Any:
    """COPRO scores candidates on the training rows, as its docstring shows."""
    optimizer = dspy.COPRO(metric=metric, breadth=options["breadth"], depth=options["depth"])
    return optimizer.compile(program, trainset=train, eval_kwargs={"num_threads": THREADS, "display_progress": False})


def mipro(program: Any, train: list[Any], val: list[Any], metric: Any, options: dict[str, Any]) -> Any:
    settings = {
        "max_bootstrapped_demos": options["demos"],
        "max_labeled_demos": options["demos"],
        "seed": options["seed"],
    }
    if options.get("auto"):
        return dspy.MIPROv2(metric, auto=options["auto"], num_threads=THREADS, **settings).compile(
            program, trainset=train, valset=val
        )
    optimizer = dspy.MIPROv2(metric, auto=None, num_candidates=options["candidates"], num_threads=THREADS, **settings)
    batches = {"minibatch": False}
    if options.get("minibatch"):
        batches = {
            "minibatch": True,
            "minibatch_size": options["minibatch"],
            "minibatch_full_eval_steps": options["steps"],
        }
    return optimizer.compile(program, trainset=train, valset=val, num_trials=options["trials"], **batches)


def random_search(program: Any, train: list[Any], val: list[Any], metric: Any, options: dict[str, Any]) -> Any:
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=metric,
        max_bootstrapped_demos=options["bootstrapped"],
        max_labeled_demos=options["labeled"],
        num_candidate_programs=options["candidates"],
        num_threads=THREADS,
    )
    return optimizer.compile(program, trainset=train, valset=val)


def simba(program: Any, train: list[Any], _val: list[Any], metric: Any, options: dict[str, Any]) -> Any:
    """SIMBA reports no incumbents; only its last program is known."""
    optimizer = dspy.SIMBA(
        metric=metric,
        bsize=options["bsize"],
        num_candidates=options["candidates"],
        max_steps=options["steps"],
        max_demos=options["demos"],
        num_threads=THREADS,
    )
    return optimizer.compile(program, trainset=train, seed=options["seed"])


def gepa(program: Any, train: list[Any], val: list[Any], metric: Any, options: dict[str, Any]) -> Any:
    optimizer = dspy.GEPA(
        metric=metric,
        max_metric_calls=options["cap"],
        reflection_minibatch_size=options["minibatch"],
        reflection_lm=dspy.settings.lm,
        num_threads=THREADS,
        track_stats=True,
        seed=options["seed"],
        warn_on_score_mismatch=False,
        component_selector=options.get("components", "round_robin"),
    )
    return optimizer.compile(program, trainset=train, valset=val)


SYSTEMS: dict[str, Callable[..., Any]] = {
    "COPRO": copro,
    "MIPROv2": mipro,
    "random search": random_search,
    "SIMBA": simba,
    "GEPA": gepa,
}


def metric_of(world: World, system: str) -> Callable[..., Any]:
    def judge(row: Any, prediction: Any) -> tuple[float, str]:
        return world.judge(row.question, row.answer, str(getattr(prediction, "answer", "")))

    def plain(row: Any, prediction: Any, _trace: Any = None) -> float:
        return judge(row, prediction)[0]

    def with_feedback(row: Any, prediction: Any, _trace: Any = None, _name: Any = None, _part: Any = None) -> Any:
        score, feedback = judge(row, prediction)
        return dspy.Prediction(score=score, feedback=feedback)

    return with_feedback if system in {"GEPA", "SIMBA"} else plain


def log_gepa(log: Log, best: Any) -> None:
    """Take the incumbents of dspy.GEPA from its results, which count calls but not seconds."""
    results = best.detailed_results
    top = -1.0
    candidates = zip(results.candidates, results.val_aggregate_scores, results.discovery_eval_counts, strict=True)
    log.curve = []
    for program, score, calls in candidates:
        if score > top:
            top = score
            log.curve.append([calls, None, log.view(program)])


def examples(world: World, name: str, options: dict[str, Any]) -> list[Any]:
    return [dspy.Example(**row).with_inputs("question") for row in world.rows(name)[: options.get(name, 60)]]


def main() -> None:
    cell = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)
    world = World(cell["world"], cell["predictors"], cell["seed"])
    options = cell["options"]
    lm = dspy.LM("openai/m", api_base=f"http://127.0.0.1:{cell['port']}/v1", api_key="x")
    dspy.configure(lm=lm, num_threads=THREADS)
    train, val = (examples(world, name, options) for name in ("train", "val"))
    program = (OneStage if cell["predictors"] == 1 else ThreeStages)(world)
    log = Log(world, cell["port"], len(train) if cell["system"] == "COPRO" else len(val))
    if cell["system"] in {"COPRO", "MIPROv2", "random search"}:
        log.watch_evaluate()
    settings = {**options, "seed": cell["seed"], "cap": cell["cap"]}
    with contextlib.redirect_stdout(sys.stderr):
        best = SYSTEMS[cell["system"]](program, train, val, metric_of(world, cell["system"]), settings)
    seconds = time.perf_counter() - log.start
    if cell["system"] == "GEPA":
        log_gepa(log, best)
    print(json.dumps({"seconds": seconds, "final": log.view(best), "curve": log.curve}))


if __name__ == "__main__":
    main()
