"""Direct calls: ``await lm("text or messages")``, without a signature or an adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

from dspynb.errors import InputError, of_dspy
from dspynb.events import PredictorCalled
from dspynb.keywords import configurable
from dspynb.lm.format_in_words import ask_for_json, json_in
from dspynb.lm.protocol import LONG_TEXT, LMProtocol, LMReply, LMRequest, Message, refuse_media
from dspynb.lm.recorded_call import RecordedCall
from dspynb.lm.settings import OTHERWISE, REQUEST_ADVICE, RequestSettings, check_json, check_settings
from dspynb.options import NonNegativeInt
from dspynb.running.aio.sync import run_sync
from dspynb.running.tracking import track_call
from dspynb.scope.core import Scope, current_scope

__all__ = ["DIRECT", "DirectCalls"]

DIRECT = "lm()"
"""The name of direct calls in tables, in the place of a predictor's path. No path of a predictor looks like it."""

_SYSTEM = "begin the list of messages with {'role': 'system', 'content': …}"
_ADVICE: Mapping[str, str] = {
    **REQUEST_ADVICE,
    **dict.fromkeys(("prompt", "text", "input", "message", "question"), "messages"),
    **dict.fromkeys(("system", "system_prompt", "instruction", "instructions"), _SYSTEM),
    "config": "pass its settings as keyword arguments, as in lm(…, temperature=1)",
    "rollout_id": "rollout",
}


class DirectCalls:
    """Makes a model callable. Base class of the models of dspynb; a model of your own needs only ``complete``."""

    __slots__ = ()

    @configurable(passes_to=RequestSettings, renamed=_ADVICE, otherwise=OTHERWISE)
    async def __call__(
        self, messages: str | Sequence[Message], *, rollout: NonNegativeInt = 0, **settings: Unpack[RequestSettings]
    ) -> LMReply:
        """Call the model directly, without a signature or an adapter: ``reply = await lm("Say hello.")``.

        ``messages``: a text, which becomes one user message, or a list of messages (``{"role": …, "content": …}``),
        which is sent as it is. ``settings``: those of a request (temperature, max_tokens, stop, n, tools, …); they win
        over the model's own, and the temperature of a Refine or BestOfN around the call wins over both. A
        ``response_format`` may also be a pydantic model; where the model takes no response format, the prompt asks for
        JSON in words, and Markdown fences around the JSON are removed. ``rollout``: equal requests with different
        numbers get different samples; the attempts of a search around the call are numbered besides.

        Returns the LMReply: ``reply.text``, ``reply.tool_calls``, ``reply.completions``, ``reply.usage``. Inside a run
        the call belongs to the run: it is in ``run.calls`` under the name ``lm()``, in the usage, in traces and in
        replays, and budgets count it. Outside of any run it makes no run and no run file.

        Raises InputError for anything else than a text or messages, ConfigurationError for a wrong setting, ModelError
        if the call fails or the reply is incomplete, and BudgetExhausted.

        >>> lm = dn.FunctionLM(lambda request: f"You said: {request.messages[-1]['content']}")
        >>> async def main():
        ...     return await lm("Hello."), await lm([{"role": "user", "content": "Hi."}], temperature=0)
        >>> [reply.text for reply in dn.run_sync(main)]
        ['You said: Hello.', 'You said: Hi.']
        """
        return await _call_directly(self, messages, rollout, settings)  # type: ignore[arg-type]  # subclasses complete

    @configurable(passes_to=RequestSettings, renamed=_ADVICE, otherwise=OTHERWISE)
    def run_sync(
        self, messages: str | Sequence[Message], *, rollout: NonNegativeInt = 0, **settings: Unpack[RequestSettings]
    ) -> LMReply:
        """Call the model synchronously. For scripts; in a notebook, use ``await lm(…)``, which has the same arguments.

        >>> dn.FunctionLM(lambda request: "Hello!").run_sync("Say hello.").text
        'Hello!'
        """
        return run_sync(lambda: _call_directly(self, messages, rollout, settings))  # type: ignore[arg-type]


class _DirectCall(RecordedCall):
    """A direct call. Outside of all runs, it is tracked on its own."""

    __slots__ = ()

    def report(self, outputs: Mapping[str, Any] | None = None, error: BaseException | None = None) -> PredictorCalled:
        """Emit an event with the request and the reply or error, and track it if no run does."""
        event = super().report(outputs, error)
        if self.scope.open_run is None:
            track_call(event)
        return event


async def _call_directly(
    lm: LMProtocol, messages: str | Sequence[Message], rollout: int, settings: Mapping[str, Any]
) -> LMReply:
    scope = current_scope()
    call = _DirectCall(lm=lm, request=_request(lm, messages, rollout, settings, scope), scope=scope, path=DIRECT)
    if getattr(lm, "streaming", False):
        call.begin_stream()
    try:
        return await _answer(call)
    finally:
        call.end_stream()


async def _answer(call: _DirectCall) -> LMReply:
    try:
        reply = await call.ask()
    except BaseException as error:
        failure = call.failure(error)
        if failure is error:
            raise
        raise failure from error
    if _asks_for_json(call.lm, call.request):
        reply = await _with_json(reply)
    call.report(outputs={"text": reply.text})
    return reply


def _asks_for_json(lm: LMProtocol, request: LMRequest) -> bool:
    if request.response_format is not None:
        return True
    settings = request.settings if "response_format" in request.settings else getattr(lm, "settings", None)
    setting = settings.get("response_format") if isinstance(settings, Mapping) else None
    return isinstance(setting, Mapping) and setting.get("type") in ("json_schema", "json_object")


async def _with_json(reply: LMReply) -> LMReply:
    """The reply without Markdown fences around its JSON."""
    if len(reply.text) <= LONG_TEXT:
        text = json_in(reply.text)
    else:
        text = await asyncio.to_thread(json_in, reply.text)
    return reply if text is reply.text else replace(reply, text=text)


def _request(
    lm: LMProtocol, messages: str | Sequence[Message], rollout: int, settings: Mapping[str, Any], scope: Scope
) -> LMRequest:
    """The request. Settings of the scope's sampling take precedence, as for a predictor."""
    name = str(getattr(lm, "name", type(lm).__name__))
    sent_messages = _checked_messages(name, messages)
    refuse_media(lm, sent_messages)
    sampling = scope.context.sampling
    sent = {**settings, **sampling.settings}
    own_settings = getattr(lm, "settings", None)
    schema = None
    if hasattr(sent.get("response_format"), "model_json_schema"):
        schema = sent["response_format"].model_json_schema()
        _take_out("response_format", sent, own_settings)
        if not getattr(lm, "constrains", False):
            sent_messages = ask_for_json(sent_messages, schema)
    check_settings(name, sent)
    sample = sampling.rollout
    if rollout:
        sample = sample.child(rollout)
    tools: tuple[Any, ...] = ()
    if "tools" in sent:
        tools = tuple(sent["tools"] or ())
        _take_out("tools", sent, own_settings)
    return LMRequest(sent_messages, sent, response_format=schema, tools=tools, rollout=sample.number)


def _take_out(name: str, settings: dict[str, Any], own_settings: object) -> None:
    """Remove a setting that has a place of its own in a request. If the model has the setting too, None remains, which
    takes precedence over the model's value."""
    del settings[name]
    if isinstance(own_settings, Mapping) and own_settings.get(name) is not None:
        settings[name] = None


def _checked_messages(model: str, messages: Any) -> tuple[Message, ...]:
    """The messages to send. Raises InputError."""
    if isinstance(messages, str) and messages.strip():
        return ({"role": "user", "content": messages},)
    if not isinstance(messages, list | tuple) or not messages:
        raise _wrong_messages(model, f"got {_describe(messages)}")
    for number, message in enumerate(messages, 1):
        problem = _problem(message)
        if problem:
            raise _wrong_messages(model, f"message {number} {problem}")
    if not all(isinstance(message["content"], str) for message in messages if "content" in message):
        check_json(model, "messages", messages)
    return tuple(dict(message) for message in messages)  # copies, since the user may extend a message later


def _wrong_messages(model: str, problem: str) -> InputError:
    return InputError(
        f"{model}: {problem}. Pass a text, or a list of messages such as [{{'role': 'user', 'content': 'Hello'}}]"
    )


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, str):
        return "an empty text"
    if isinstance(value, list | tuple):
        return "an empty list"
    if isinstance(value, Mapping) and "role" in value:
        return "a single message, which belongs into a list"
    if isinstance(value, LMRequest):
        return "an LMRequest, which is sent with lm.complete(request)"
    return f"{type(value).__name__}{of_dspy(value).rstrip('.')}"


def _problem(message: Any) -> str:
    """What is wrong with a message; empty if nothing is."""
    if not isinstance(message, Mapping):
        return f"is {type(message).__name__} and not a dict"
    role = message.get("role")
    if not isinstance(role, str) or not role:
        return "has no 'role'"
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        return "has no 'content'"
    if not isinstance(content, str | list | tuple | None):
        return f"has a content of type {type(content).__name__}; give a text or a list of content parts"
    return ""
