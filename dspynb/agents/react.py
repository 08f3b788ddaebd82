"""ReAct: the model thinks, calls tools and observes their results until it can answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic_core import to_jsonable_python

from dspynb.agents.step import (
    FINISH,
    Act,
    ToolCall,
    Trajectory,
    calls_of,
    extract_signature,
    has_reasoning,
    turn_messages,
)
from dspynb.agents.tools.tool import Observation, Tool, named_tools, unknown_tool
from dspynb.data import Prediction
from dspynb.errors import ContextTooLong, ParseError
from dspynb.keywords import configurable
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.modules.shortening import repeat_until_it_fits
from dspynb.options import Bool, PositiveInt, Seconds
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.user_code import guarded
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature, as_signature

__all__ = ["STEP", "ReAct", "trajectory_text"]

STEP = frozenset({"thought", "tool", "args", "observation"})
"""The keys of a step of a trajectory, beside ``seconds``."""

_MAX_DROPPED = 3
"""Tool calls that are dropped at most for one step that is too long for the model, one with each repeated request."""

_OF_DSPY = {
    "max_iters": "max_iterations",
    "lm": "its predictors take the model in force: dn.configure(lm=…), or `with dn.context(lm=…)`",
    "max_steps": "max_iterations",
    "callbacks": "runs record every call: see run.calls and dn.trace()",
}


class ReAct(Module):
    """Calls tools until the model can answer, then writes the outputs (Yao et al. 2023, arXiv:2210.03629).

    Wrong arguments, unknown tools, unreadable replies, and exceptions become observations for the model. If a request
    is too long for the model, it is repeated without the oldest tool call, up to three times.

    The prediction has the signature's outputs and ``trajectory``: a dict for each tool call, with ``thought``,
    ``tool``, ``args``, ``observation`` and ``seconds``. The predictors are ``react`` and ``extract``.

    Args:
        signature: The inputs and outputs, as a class or a string.
        tools: Functions (plain or async), methods, callable objects, Modules, or ``dn.Tool``. May be empty.
        max_iterations: Most calls of the model, not counting the one that writes the outputs.
        timeout: Seconds for thinking and calling tools. After that, as after the last iteration, the outputs are
            written from the trajectory so far.
        tool_timeout: Seconds for one tool call.
        native: Whether tools are sent natively: True, False (as text), or "auto" for the model's ``native_tools``.
        parallel: Whether the tool calls of one reply run at the same time.

    Raises:
        ConfigurationError: Two tools have the same name, or a limit is too small.
        SignatureError: The signature has a reserved field name, such as ``trajectory``.

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
        tools_by_name = named_tools(tools, reserved=(FINISH,))
        self.react = Act(self.signature, tools_by_name, native)
        self.extract = Predict(extract_signature(self.signature))
        self.tools = tools_by_name
        self.max_iterations = max_iterations
        self.timeout = timeout
        self.tool_timeout = tool_timeout
        self.parallel = parallel

    def most_calls(self) -> int:
        """Calls of the turns and of writing the outputs, not counting calls that tools make."""
        return self.max_iterations + self.extract.most_calls()

    def _fields(self, kind: str) -> Mapping[str, Field]:
        return self.signature.input_fields if kind == "input" else self.signature.output_fields

    def _title(self) -> str:
        return f"{type(self).__name__}({self.signature.describe()})"

    def _run_settings(self) -> dict[str, Any]:
        return {
            "max_iterations": self.max_iterations,
            "timeout": self.timeout,
            "tool_timeout": self.tool_timeout,
            "tools": list(self.tools),
        }

    async def forward(self, **inputs: Any) -> Prediction:
        """Act until finished or out of time, then write the outputs."""
        episode = _Episode(self, self.signature.check_inputs(inputs, type(self).__name__))
        await episode.act()
        outputs = await episode.ask(self.extract)
        return Prediction({**outputs.to_dict(), "trajectory": [dict(step) for step in episode.trajectory]})


class _Episode:
    """The state of one call of a ReAct, so that concurrent calls of one object are independent."""

    def __init__(self, program: ReAct, inputs: Mapping[str, Any]) -> None:
        self.program = program
        self.inputs = inputs
        self.trajectory: list[dict[str, Any]] = []
        self.dropped = 0  # oldest tool calls that are left out of requests
        self.turns: list[Mapping[str, Any]] = []  # messages of the last turns, from one with encrypted reasoning on
        self.before_turns = 0  # the number of steps before these turns

    async def act(self) -> None:
        """Take turns until the model finishes or the iterations or the time run out."""
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
        """Take one turn: a thought and its tool calls. Return whether the model has finished."""
        try:
            turn = await self.ask(self.program.react)
        except ParseError as error:
            text = f"Your reply could not be read: {error.problem}. Keep to the form that was asked for."
            self._add_step("", "", {}, text)
            self.turns = []
            return False
        calls = calls_of(turn)
        if not calls:
            self._add_step(turn["next_thought"], FINISH, {}, "Finished.")
            return True
        thought = turn["next_thought"]
        pairs = []
        for call in calls:
            pairs.append((call, self._add_step(thought, call.name, call.args, _UNFINISHED)))
            thought = ""  # the first step of the turn has it
        await self._call_all(pairs)
        self._add_turn(turn, [step for _, step in pairs])
        return False

    def _add_turn(self, turn: Prediction, steps: Sequence[Mapping[str, Any]]) -> None:
        """Add a turn to those that requests repeat as messages. A turn without native calls ends these, since a text of
        the trajectory after them would be in the wrong order."""
        event = turn.meta.calls[-1] if turn.meta.calls else None
        if event is None or not event.tool_calls:
            self.turns = []
            return
        if not self.turns:
            if not has_reasoning(event):
                return
            self.before_turns = len(self.trajectory) - len(steps)
        self.turns += turn_messages(event, [step["observation"] for step in steps])

    def _add_step(self, thought: str, tool: str, args: Mapping[str, Any] | str, observation: str) -> dict[str, Any]:
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
                    task.result()  # raises exceptions that end the work
        finally:
            await end_tasks(tasks)

    async def _call(self, call: ToolCall, step: dict[str, Any]) -> None:
        observation = await self._observe(call)
        step["observation"] = observation.text
        step["seconds"] = observation.seconds

    async def _observe(self, call: ToolCall) -> Observation:
        tool = self.program.tools.get(call.name)
        if tool is None:
            return unknown_tool(call.name, self.program.tools)
        return await tool(call.args, timeout=self.program.tool_timeout)

    async def ask(self, predictor: Predict) -> Prediction:
        """Call a predictor with the inputs and the trajectory, without its oldest tool calls if that is too long."""
        most_dropped = min(self.dropped + _MAX_DROPPED, len(self.trajectory) - 1)

        def drop_oldest() -> bool:
            if self.dropped >= most_dropped:
                return False
            self.dropped += 1
            return True

        return await repeat_until_it_fits(lambda: predictor(**self.inputs, trajectory=self.text()), drop_oldest)

    def text(self) -> str:
        """Return the trajectory as the model sees it."""
        text = trajectory_text(self.trajectory, self.dropped)
        if self.dropped or not self.turns:
            return text
        return Trajectory(text, trajectory_text(self.trajectory[: self.before_turns]), self.turns)


def trajectory_text(trajectory: Sequence[Mapping[str, Any]], dropped: int = 0) -> str:
    """Return the steps of a trajectory (``thought``, ``tool``, ``args``, ``observation``) as text for a model.

    ``dropped``: number of steps to leave out at the beginning.
    """
    texts = [_step_text(number, step) for number, step in enumerate(trajectory, 1)][dropped:]
    if dropped:
        texts.insert(0, f"[The first {dropped} steps are left out.]")
    return "\n\n".join(texts) or "(nothing yet)"


_UNFINISHED = "(not finished when the time was up)"


def _step_text(number: int, step: Mapping[str, Any]) -> str:
    lines = [f"Step {number}"]
    if step["thought"]:
        lines.append(f"Thought: {step['thought']}")
    if step["tool"]:
        args = step["args"]
        if not isinstance(args, str):
            args = _json(args)
        lines.append(f"Tool: {step['tool']} {args}")
    lines.append(f"Observation: {step['observation']}")
    return "\n".join(lines)


def _json(value: object) -> str:
    return json.dumps(to_jsonable_python(value, fallback=str), ensure_ascii=False)
