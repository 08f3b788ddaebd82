"""Run one cell with gepa 0.1.4 itself: reads the cell as JSON from stdin, and writes its result to stdout.

`optimizers.py` starts this script in an environment with ``pip install gepa==0.1.4``. The adapter evaluates a batch of
(candidate, rows) pairs in 8 threads with persistent connections, as gepa's documentation recommends for fast adapters.
Prompts have the format of DSPy's ChatAdapter. Reflection uses gepa's own prompt and parser.
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
    """Chat completions with one connection per thread."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.local = threading.local()

    def __call__(self, messages: list[dict[str, str]]) -> str:
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection("127.0.0.1", self.port)
        body = json.dumps({"model": "m", "messages": messages})
        self.local.connection.request("POST", "/v1/chat/completions", body)
        return str(json.load(self.local.connection.getresponse())["choices"][0]["message"]["content"])


class Quiet(LoggerProtocol):
    def log(self, message: str) -> None:
        """Print nothing: stdout is for the result."""


class Adapter:
    """The program of the world for gepa. A candidate maps names of stages to instructions."""

    propose_new_texts = None

    def __init__(self, world: World, client: Client) -> None:
        self.world = world
        self.client = client
        self.pool = ThreadPoolExecutor(THREADS)

    def batch_evaluate(self, items: Sequence[tuple[dict[str, str], list[Any]]], **_more: Any) -> list[Any]:
        jobs = []
        for candidate, rows in items:
            jobs.append([self.pool.submit(self.run, candidate, row) for row in rows])
        return [batch([job.result() for job in jobs_of_pair]) for jobs_of_pair in jobs]

    def evaluate(self, rows: list[Any], candidate: dict[str, str], capture_traces: bool = False) -> Any:  # noqa: ARG002
        return self.batch_evaluate([(candidate, rows)])[0]

    def run(self, candidate: Mapping[str, str], row: Mapping[str, str]) -> dict[str, Any]:
        fields = {"question": row["question"]}
        steps = {}
        for stage in self.world.stages:
            inputs = {name: fields[name] for name in stage.inputs}
            fields[stage.output] = self.step(stage, candidate[stage.name], inputs)
            steps[stage.name] = {"Inputs": inputs, "Generated Outputs": fields[stage.output]}
        score, feedback = self.world.judge(row["question"], row["answer"], fields["answer"])
        return {"score": score, "feedback": feedback, "steps": steps, "answer": fields["answer"]}

    def step(self, stage: Stage, instruction: str, inputs: Mapping[str, str]) -> str:
        values = "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in inputs.items())
        request = f"Respond with `[[ ## {stage.output} ## ]]`, and then `[[ ## completed ## ]]`."
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": f"{values}\n\n{request}"}]
        reply = self.client(messages)
        return reply.split(f"[[ ## {stage.output} ## ]]")[1].split("[[ ##")[0].strip()

    def make_reflective_dataset(self, _candidate: Any, evaluated: Any, names: list[str]) -> dict[str, Any]:
        dataset: dict[str, Any] = {}
        for name in names:
            dataset[name] = [
                {**result["steps"][name], "Feedback": result["feedback"]} for result in evaluated.trajectories
            ]
        return dataset


def batch(results: list[dict[str, Any]]) -> Any:
    scores = [result["score"] for result in results]
    return EvaluationBatch(outputs=[result["answer"] for result in results], scores=scores, trajectories=results)


def view_of(world: World, candidate: Mapping[str, str]) -> list[dict[str, Any]]:
    return world.view((candidate[stage.name], ()) for stage in world.stages)


def main() -> None:
    cell = json.load(sys.stdin)
    world = World(cell["world"], cell["predictors"], cell["seed"])
    options = cell["options"]
    client = Client(cell["port"])
    start = time.perf_counter()
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
    seconds = time.perf_counter() - start
    views = [view_of(world, candidate) for candidate in result.candidates]
    curve = []
    top = -1.0
    for view, score, calls in zip(views, result.val_aggregate_scores, result.discovery_eval_counts, strict=True):
        if score > top:
            top = score
            curve.append([calls, None, view])
    print(json.dumps({"seconds": seconds, "final": views[result.best_idx], "curve": curve}))


if __name__ == "__main__":
    main()
