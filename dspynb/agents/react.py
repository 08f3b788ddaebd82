"""ReAct: a model that thinks, calls tools and sees what they return, until it can answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic_core import to_jsonable_python

from dspynb.agents.step import FINISH, Act, ToolCall, calls_of, extract_signature
from dspynb.agents.tools.tool import Observation, Tool, named_tools, unknown_tool
from dspynb.data import Prediction
from dspynb.errors import ConfigurationError, ContextTooLong, ParseError
from dspynb.keywords import configurable
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.options import Bool, PositiveInt, Seconds
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.user_code import guarded
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature, as_signature

__all__ = ["STEP", "ReAct", "trajectory_text"]

STEP = frozenset({"thought", "tool", "args", "observation"})
"""What a step of a trajectory has, beside the seconds it took."""

_TRIES = 4
"""Calls made for one step of which each has one tool call less in its trajectory."""

_OF_DSPY = {
    "max_iters": "max_iterations",
    "lm": "its predictors take the model in force: dn.configure(lm=…), or `with dn.context(lm=…)`",
    "max_steps": "max_iterations",
    "callbacks": "runs record every call: see run.calls and dn.trace()",
}


class ReAct(Module):
    """Calls tools until all is known that the signature's outputs need, then writes them (Yao et al. 2023,
    arXiv:2210.03629).

    ``tools``: functions (plain or async), methods, callable objects, Modules, or ``dn.Tool``. Wrong arguments, unknown
    tools, replies that cannot be read, and exceptions become observations that the model sees.
    ``max_iterations``: model calls, the one that writes the outputs not counted. ``timeout``: seconds for thinking and
    calling; then, as after the last iteration, the outputs are written from what there is. ``tool_timeout``: seconds
    for one tool call. ``native``: whether tools go to the model natively: True, False (as text), or "auto", which asks
    the model's ``native_tools``. ``parallel``: whether tool calls of one reply run at the same time.

    The prediction has the signature's outputs and ``trajectory``: a dict for each tool call, with ``thought``,
    ``tool``, ``args``, ``observation`` and ``seconds``. Its predictors are ``react`` and ``extract``. A request
    that is too long for the model is made again without the oldest tool call in it, up to three times.

    Raises ConfigurationError or SignatureError when made: two tools of one name, a limit below its least, a field named
    ``trajectory``.

    >>> def population(city: str) -> int:
    ...     '''How many people live in a city.'''
    ...     return {"Oslo": 700_000}[city]
    >>> lm = dn.ScriptedLM([
    ...     'next_thought: Look it up.\\nnext_tool_name: population\\nnext_tool_args: {"city": "Oslo"}',
    ...     'next_thought: Known.\\nnext_tool_name: finish\\nnext_tool_args: {}',
    ...     "answer: 700,000",
    ... ])
    >>> with dn.context(lm=lm):
    ...     prediction = dn.ReAct("question -> answer", [population]).run_sync(question="How many live in Oslo?")
    >>> prediction.answer, prediction.trajectory[0]["observation"]
    ('700,000', '700000')
    """

    @configurable(renamed=_OF_DSPY)
    def __init__(
        self,
        signature: type[Signature] | str,
        tools: Iterable[Callable[..., Any] | Tool],
        *,
        max_iterations: PositiveInt = 10,
        timeout: Seconds | None = None,
        tool_timeout: Seconds | None = None,
        native: Bool | Literal["auto"] = "auto",
        parallel: Bool = True,
    ) -> None:
        self.signature = as_signature(signature)
        named = named_tools(tools, reserved=(FINISH,))
        if not named:
            raise ConfigurationError("ReAct needs at least one tool; without tools use dn.Predict")
        self.react = Act(self.signature, named, native)
        self.extract = Predict(extract_signature(self.signature))
        self.tools = named
        self.max_iterations, self.timeout, self.tool_timeout = max_iterations, timeout, tool_timeout
        self.parallel = parallel

    def most_calls(self) -> int:
        """A call a turn, and reading the result; those that tools make come on top."""
        return self.max_iterations + self.extract.most_calls()

    def _fields(self, kind: str) -> Mapping[str, Field]:
        return self.signature.input_fields if kind == "input" else self.signature.output_fields

    def _title(self) -> str:
        return f"{type(self).__name__}({self.signature.describe()})"

    def _run_settings(self) -> dict[str, Any]:
        limits = {n: getattr(self, n) for n in ("max_iterations", "timeout", "tool_timeout")}
        return {**limits, "tools": list(self.tools)}

    async def forward(self, **inputs: Any) -> Prediction:
        """Act until finished or out of time, then write the outputs."""
        episode = _Episode(self, self.signature.check_inputs(inputs, type(self).__name__))
        await episode.act()
        outputs = await episode.ask(self.extract)
        return Prediction({**outputs.to_dict(), "trajectory": [dict(step) for step in episode.trajectory]})


class _Episode:
    """One call of a ReAct: all that it knows stands here, so that calls of one object do not meet."""

    def __init__(self, program: ReAct, inputs: Mapping[str, Any]) -> None:
        self.program, self.inputs = program, inputs
        self.trajectory: list[dict[str, Any]] = []
        self.dropped = 0  # of the oldest tool calls, to make requests shorter

    async def act(self) -> None:
        """Take turns until the model finishes, or until there are no more turns or no more time."""
        clock = asyncio.timeout(self.program.timeout)
        try:
            async with clock:
                for _ in range(self.program.max_iterations):
                    if await self._turn() or clock.expired():  # a tool may have swallowed the cancellation
                        return
        except TimeoutError:
            if not clock.expired():
                raise
        except ContextTooLong:
            if not self.trajectory:
                raise

    async def _turn(self) -> bool:
        """One thought and its tool calls; whether the model has finished."""
        try:
            turn = await self.ask(self.program.react)
        except ParseError as error:
            self._note(
                "", "", {}, f"Your reply could not be read: {error.problem}. Keep to the form that was asked for."
            )
            return False
        calls = calls_of(turn)
        if not calls:
            self._note(turn["next_thought"], FINISH, {}, "Finished.")
            return True
        steps = [
            self._note(turn["next_thought"] if i == 0 else "", call.name, call.args, _UNFINISHED)
            for i, call in enumerate(calls)
        ]
        await self._call_all(list(zip(calls, steps, strict=True)))
        return False

    def _note(self, thought: str, tool: str, args: Mapping[str, Any] | str, observation: str) -> dict[str, Any]:
        step = {"thought": thought, "tool": tool, "args": args, "observation": observation, "seconds": 0.0}
        self.trajectory.append(step)
        return step

    async def _call_all(self, pairs: Sequence[tuple[ToolCall, dict[str, Any]]]) -> None:
        if len(pairs) == 1 or not self.program.parallel:
            for call, step in pairs:
                await self._call(call, step)
            return
        tasks = [asyncio.create_task(guarded(f"the tool {call.name}", self._call, call, step)) for call, step in pairs]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()  # raises what is to end the work
        finally:
            await end_tasks(tasks)

    async def _call(self, call: ToolCall, step: dict[str, Any]) -> None:
        seen = await self._observed(call)
        step["observation"], step["seconds"] = seen.text, seen.seconds

    async def _observed(self, call: ToolCall) -> Observation:
        tool = self.program.tools.get(call.name)
        if tool is None:
            return unknown_tool(call.name, self.program.tools)
        return await tool(call.args, timeout=self.program.tool_timeout)

    async def ask(self, predictor: Predict) -> Prediction:
        """A predictor's answer to the inputs and the trajectory, shortened until the model can take it."""
        for left in reversed(range(_TRIES)):
            try:
                return await predictor(**self.inputs, trajectory=self.text())
            except ContextTooLong:
                if not left or len(self.trajectory) - self.dropped <= 1:
                    raise
                self.dropped += 1
        raise AssertionError("unreachable")

    def text(self) -> str:
        """The trajectory as the model reads it."""
        return trajectory_text(self.trajectory, self.dropped)


def trajectory_text(trajectory: Sequence[Mapping[str, Any]], dropped: int = 0) -> str:
    """Steps (``thought``, ``tool``, ``args``, ``observation``) as a model reads them; without the first ``dropped``."""
    steps = [_step_text(i, step) for i, step in enumerate(trajectory, 1)][dropped:]
    left_out = [f"[The first {dropped} steps are left out.]"] if dropped else []
    return "\n\n".join([*left_out, *steps]) or "(nothing yet)"


_UNFINISHED = "(not finished when the time was up)"


def _step_text(number: int, step: Mapping[str, Any]) -> str:
    args = step["args"] if isinstance(step["args"], str) else _json(step["args"])
    thought = [f"Thought: {step['thought']}"] if step["thought"] else []
    call = [f"Tool: {step['tool']} {args}"] if step["tool"] else []
    return "\n".join([f"Step {number}", *thought, *call, f"Observation: {step['observation']}"])


def _json(value: Any) -> str:
    return json.dumps(to_jsonable_python(value, fallback=str), ensure_ascii=False)
