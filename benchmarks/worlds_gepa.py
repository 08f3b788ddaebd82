"""One cell with gepa 0.1.4 itself: reads the cell as JSON from stdin, writes what was found to stdout.

Run by `optimizers.py` in an environment with ``pip install gepa==0.1.4``. The adapter evaluates a batch of (candidate,
rows) pairs at once over 8 threads with kept connections, as its documentation asks of a fast adapter; prompts have the
form of DSPy's ChatAdapter. Reflection is gepa's own prompt and parser.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gepa import EvaluationBatch, optimize
from gepa.logging.logger import LoggerProtocol
from gepa.strategies.proposal_sampling import PxNSampling
from worlds import Stage, World

THREADS = 8


class Client:
    """Chat completions over one connection for each thread."""

    def __init__(self, port: int) -> None:
        self.port, self.local = port, threading.local()

    def __call__(self, messages: list[dict[str, str]]) -> str:
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection("127.0.0.1", self.port)
        body = json.dumps({"model": "m", "messages": messages})
        self.local.connection.request("POST", "/v1/chat/completions", body)
        return str(json.load(self.local.connection.getresponse())["choices"][0]["message"]["content"])


class Quiet(LoggerProtocol):
    def log(self, message: str) -> None:
        """Nothing: stdout is for the result."""


class Adapter:
    """The program of the world for gepa: candidates are instructions by the name of the stage."""

    propose_new_texts = None

    def __init__(self, world: World, client: Client) -> None:
        self.world, self.client, self.pool = world, client, ThreadPoolExecutor(THREADS)

    def batch_evaluate(self, items: Sequence[tuple[dict[str, str], list[Any]]], **_more: Any) -> list[Any]:
        jobs = [[self.pool.submit(self.run, candidate, row) for row in rows] for candidate, rows in items]
        return [batch([job.result() for job in part]) for part in jobs]

    def evaluate(self, rows: list[Any], candidate: dict[str, str], capture_traces: bool = False) -> Any:  # noqa: ARG002
        return self.batch_evaluate([(candidate, rows)])[0]

    def run(self, candidate: Mapping[str, str], row: Mapping[str, str]) -> dict[str, Any]:
        fields, steps = {"question": row["question"]}, {}
        for stage in self.world.stages:
            given = {name: fields[name] for name in stage.inputs}
            fields[stage.output] = self.step(stage, candidate[stage.name], given)
            steps[stage.name] = {"Inputs": given, "Generated Outputs": fields[stage.output]}
        score, feedback = self.world.judge(row["question"], row["answer"], fields["answer"])
        return {"score": score, "feedback": feedback, "steps": steps, "answer": fields["answer"]}

    def step(self, stage: Stage, instruction: str, given: Mapping[str, str]) -> str:
        told = "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in given.items())
        asked = f"Respond with `[[ ## {stage.output} ## ]]`, and then `[[ ## completed ## ]]`."
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": f"{told}\n\n{asked}"}]
        reply = self.client(messages)
        return reply.split(f"[[ ## {stage.output} ## ]]")[1].split("[[ ##")[0].strip()

    def make_reflective_dataset(self, _candidate: Any, evaluated: Any, names: list[str]) -> dict[str, Any]:
        told = evaluated.trajectories
        return {name: [{**seen["steps"][name], "Feedback": seen["feedback"]} for seen in told] for name in names}


def batch(results: list[dict[str, Any]]) -> Any:
    scores = [result["score"] for result in results]
    return EvaluationBatch(outputs=[result["answer"] for result in results], scores=scores, trajectories=results)


def main() -> None:
    cell = json.load(sys.stdin)
    world, options, client = (
        World(cell["world"], cell["predictors"], cell["seed"]),
        cell["options"],
        Client(cell["port"]),
    )
    began = time.perf_counter()
    result = optimize(
        seed_candidate={stage.name: stage.instruction for stage in world.stages},
        trainset=world.rows("train"),
        valset=world.rows("val")[: options.get("val", 60)],
        adapter=Adapter(world, client),
        reflection_lm=lambda prompt: client([{"role": "user", "content": prompt}]),
        reflection_minibatch_size=options["minibatch"],
        sampling_strategy=PxNSampling(options["parents"], options["each"]),
        max_metric_calls=cell["cap"],
        seed=cell["seed"],
        logger=Quiet(),
        use_merge=options.get("merge", False),
        module_selector=options.get("components", "round_robin"),
    )
    seconds = time.perf_counter() - began
    views = [world.view((c[stage.name], ()) for stage in world.stages) for c in result.candidates]
    curve, top = [], -1.0
    for view, score, calls in zip(views, result.val_aggregate_scores, result.discovery_eval_counts, strict=True):
        if score > top:
            top = score
            curve.append([calls, None, view])
    print(json.dumps({"seconds": seconds, "final": views[result.best_idx], "curve": curve}))


if __name__ == "__main__":
    main()
