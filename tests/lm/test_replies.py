"""A truncated, refused or damaged reply is an error. It is counted, but never cached and never parsed."""

from __future__ import annotations

import asyncio
import copy
import enum
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb import errors
from dspynb.data import Usage
from dspynb.lm.cache import default_cache
from dspynb.lm.providers import openai_format
from dspynb.lm.providers.openai_format import excerpt, read_reply
from dspynb.lm.providers.reply_assembler import ReplyAssembler
from tests.helpers import Caption, chat
from tests.lm.server import Server, reply, sse

OF_LITELLM = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # raised by litellm itself

KEY = "sk-a-very-secret-key-0123456789"
CUT = "[[ ## sentence ## ]]\nThe capital of France is Par"


def lm(server, **settings):
    return dn.LM("openai/m", api_base=server.base, api_key=KEY, **settings)


def body(text, finish="stop", **message):
    whole = reply(text, **message)
    whole["choices"][0]["finish_reason"] = finish
    return whole


def ask(model, text="hi", **settings):
    return asyncio.run(model.complete(dn.LMRequest(({"role": "user", "content": text},), settings)))


@pytest.fixture
def cached(monkeypatch, tmp_path):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "cache"))
    dn.configure(cache=True)
    yield default_cache()
    default_cache().flush()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("dspynb.lm.limits._FIRST_WAIT", 0.001)


# ── cut ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("engine", ["direct", pytest.param("litellm", marks=OF_LITELLM)])
def test_a_cut_reply_is_an_error_that_names_the_limit_that_was_sent(engine):
    with Server(lambda b, n: body("The capital of France is Par", "length")) as server:
        with pytest.raises(dn.ReplyTruncated) as caught:
            ask(lm(server, max_tokens=8, engine=engine))
        assert len(server.bodies) == 1  # a retry would be truncated again
    error = caught.value
    assert str(error) == (
        "openai/m: the reply was cut at max_tokens=8 (raise it); it begins: 'The capital of France is Par'"
    )
    assert error.text == "The capital of France is Par"
    assert not error.retryable
    assert (error.usage.calls, error.usage.tokens) == (1, 10)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (str(other), other.text, other.usage) == (str(error), error.text, error.usage)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 8}, r"cut at max_tokens=8 \(raise it\)"),
        ({"max_completion_tokens": 9}, r"cut at max_completion_tokens=9 \(raise it\)"),
        ({"max_tokens": None}, "the model's own limit"),
        ({}, r"the model's own limit \(no max_tokens was sent"),
    ],
)
def test_the_error_names_the_limit_of_the_request_or_says_that_none_was_sent(settings, message):
    with Server(lambda b, n: body("a b", "length")) as server, pytest.raises(dn.ReplyTruncated, match=message):
        ask(lm(server), **settings)


def test_a_reply_that_was_all_reasoning_says_so_and_is_paid_for_once():
    def answer(b, n):
        whole = body("", "length", reasoning_content="Let me think")
        whole["usage"] = {
            "prompt_tokens": 20,
            "completion_tokens": 256,
            "completion_tokens_details": {"reasoning_tokens": 256},
        }
        return whole

    with Server(answer) as server, pytest.raises(dn.ReplyTruncated) as caught:
        dn.Predict(Caption, lm=lm(server), max_tokens=256).run_sync(subject="x")
    assert "used all 256 tokens for reasoning; raise max_tokens or lower the effort" in str(caught.value)
    run = dn.last_run()
    assert len(server.bodies) == run.usage.calls == 1
    assert run.usage.tokens == 276
    assert run.calls.tokens.tolist() == [276]


def test_a_truncated_tool_call_is_no_tool_call():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    with Server(lambda b, n: body(None, "length", tool_calls=[call])) as server:
        with pytest.raises(dn.ReplyTruncated, match="a tool call"):
            ask(lm(server, max_tokens=8))


def test_neither_a_truncated_reply_nor_its_error_is_cached(cached):
    with Server(lambda b, n: body("cut of", "length") if n == 1 else "whole") as server:
        model = lm(server)
        with pytest.raises(dn.ReplyTruncated):
            ask(model)
        assert ask(model).text == "whole"
        assert ask(model).cached
    assert len(server.bodies) == 2


def test_a_truncated_stream_is_passed_on_then_an_error_and_never_cached(cached):
    with Server(lambda b, n: "whole") as server:
        server.streamed = [sse(["cut ", "of"], finish="length", usage={"prompt_tokens": 7, "completion_tokens": 2})]
        model, received = lm(server, max_tokens=2), []
        with pytest.raises(dn.ReplyTruncated, match="max_tokens=2") as caught:
            asyncio.run(model.stream(dn.LMRequest(({"role": "user", "content": "hi"},)), received.append))
        assert "".join(received) == caught.value.text == "cut of"
        assert caught.value.usage.tokens == 9
        assert ask(model).text == "whole"


def test_a_cut_reply_that_an_earlier_version_cached_is_not_served(cached):
    with Server(lambda b, n: "whole") as server:
        model = lm(server)
        request = dn.LMRequest(({"role": "user", "content": "hi"},))
        cached.put(model._key(request, {}), dn.LMReply("cut of", finish="length"))
        assert asyncio.run(model.cached_reply(request)) is None
        assert asyncio.run(model.complete(request)).text == "whole"


def test_requests_that_share_a_truncated_reply_cost_nothing(cached):
    async def answer(b, n):
        await asyncio.sleep(0.1)
        return body("cut of", "length")

    with Server(answer) as server:
        predict = dn.Predict(Caption, lm=lm(server))

        async def main():
            return await asyncio.gather(*(predict(subject="x") for _ in range(3)), return_exceptions=True)

        with dn.Budget(calls=10, tokens=1_000) as meter:
            results = asyncio.run(main())
    assert [type(r) for r in results] == [dn.ReplyTruncated] * 3
    assert len(server.bodies) == 1
    assert sum(r.usage.calls for r in results) == 1
    assert (meter.spent["calls"], meter.spent["tokens"]) == (1, 10)


class Cut:
    """A model written by a user."""

    max_tokens = 12

    async def complete(self, request):
        return dn.LMReply(CUT, finish="length", usage=Usage(calls=1, prompt_tokens=5, completion_tokens=12, usd=0.25))


class CutStream(Cut):
    async def stream(self, request, on_piece):
        on_piece(CUT)
        return await self.complete(request)


@pytest.mark.parametrize(
    "model",
    [
        Cut(),
        CutStream(),
        dn.FunctionLM(lambda request: dn.LMReply(CUT, finish="length")),
        dn.ScriptedLM([dn.LMReply(CUT, finish="max_tokens"), "[[ ## sentence ## ]]\nnever asked for"]),
    ],
)
def test_a_cut_reply_of_any_model_is_an_error_and_not_repaired(model):
    predict = dn.Predict(Caption, lm=model)

    async def main():
        if hasattr(model, "stream"):
            return [part async for part in predict.stream(subject="x")]
        return await predict(subject="x")

    with pytest.raises(dn.ReplyTruncated) as caught:
        asyncio.run(main())
    assert caught.value.text == CUT
    assert dn.history(1)[0].usage.calls == 1
    assert dn.history(1)[0].error.startswith("ReplyTruncated")


def test_the_cost_of_a_truncated_reply_is_in_tables_runs_attempts_and_budgets():
    search = dn.BestOfN(dn.Predict(Caption, lm=Cut()), lambda row, prediction: 1.0, n=2)
    with dn.Budget(tokens=1_000, usd=10) as meter, pytest.raises(dn.AllAttemptsFailed):
        search.run_sync(subject="x")
    run = dn.last_run()
    assert run.calls.tokens.tolist() == run.attempts.tokens.tolist() == [17, 17]
    assert run.attempts.usd.tolist() == [0.25, 0.25]
    assert (run.usage.calls, run.usage.tokens, run.usage.usd) == (2, 34, 0.5)
    assert (meter.spent["tokens"], meter.spent["usd"]) == (34, 0.5)
    assert "cut at max_tokens=12" in run.calls.error[0]
    assert dn.open_run(run.path).usage == run.usage


def test_incomplete_replies_spend_a_budget_in_usd():
    async def main():
        with dn.Budget(usd=0.5):
            return await dn.evaluate(
                dn.Predict(Caption, lm=Cut()), [{"subject": str(i)} for i in range(20)], lambda *_: 1
            )

    dn.configure(view="off")
    done = asyncio.run(main())
    assert done.run.usage.calls < 20


# ── recordings ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_cut_reply_is_not_recorded(tmp_path):
    replies = [dn.LMReply(CUT, finish="length"), dn.LMReply(chat(sentence="whole"), finish="stop")]
    predict = dn.Predict(Caption, lm=dn.recorded(tmp_path / "r.jsonl", lm=dn.ScriptedLM(replies)))
    with pytest.raises(dn.ReplyTruncated):
        predict.run_sync(subject="x")
    assert not (tmp_path / "r.jsonl").exists()
    assert predict.run_sync(subject="x").sentence == "whole"
    assert dn.Predict(Caption, lm=dn.recorded(tmp_path / "r.jsonl")).run_sync(subject="x").sentence == "whole"


def test_a_truncated_reply_of_an_older_recording_is_requested_again_or_without_a_model_an_error(tmp_path):
    path = tmp_path / "r.jsonl"
    model = dn.FunctionLM(lambda request: dn.LMReply(chat(sentence="whole"), finish="stop"))
    dn.Predict(Caption, lm=dn.recorded(path, lm=model)).run_sync(subject="x")
    old = {**json.loads(path.read_text()), "text": CUT, "finish": "length"}
    path.write_text(json.dumps(old) + "\n")
    strict = dn.recorded(path)
    with dn.Budget(calls=5) as meter, pytest.raises(dn.ReplyTruncated):
        dn.Predict(Caption, lm=strict).run_sync(subject="x")
    assert meter.spent["calls"] == 0
    assert dn.Predict(Caption, lm=dn.recorded(path, lm=model)).run_sync(subject="x").sentence == "whole"
    assert dn.Predict(Caption, lm=dn.recorded(path)).run_sync(subject="x").sentence == "whole"


# ── refused and filtered ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("content", "engine"),
    [
        (None, "direct"),
        ("", "direct"),
        ("I began to", "direct"),
        ([{"type": "text", "text": "I began to"}], "direct"),
        pytest.param(None, "litellm", marks=OF_LITELLM),
        pytest.param("I began to", "litellm", marks=OF_LITELLM),
    ],
)
def test_a_refusal_is_one_call_with_its_text(content, engine):
    with Server(lambda b, n: body(content, refusal=f"I cannot help with {KEY}.")) as server:
        with pytest.raises(dn.Refused, match=r"the model refused to answer: 'I cannot help with \*\*\*\.'") as caught:
            ask(lm(server, engine=engine))
    assert len(server.bodies) == 1
    assert caught.value.text == "I cannot help with ***."
    assert caught.value.usage.tokens == 10


def test_a_refusal_in_a_stream_or_among_the_parts_is_a_refusal():
    pieces = ReplyAssembler()
    for delta in ({"refusal": "I can"}, {"refusal": "not."}):
        pieces.add({"choices": [{"delta": delta}]}, {})
    pieces.add({"choices": [{"delta": {}, "finish_reason": "stop"}]}, {})
    with pytest.raises(dn.Refused, match=r"I cannot\."):
        read_reply(pieces.body({}), "openai/m", {})
    with pytest.raises(dn.Refused, match="No"):
        read_reply(body([{"type": "refusal", "refusal": "No."}]), "openai/m", {})


@pytest.mark.parametrize("text", ["", "Once upon a"])
def test_a_filtered_reply_is_an_error_however_long_its_text(text):
    with Server(lambda b, n: body(text, "content_filter")) as server:
        with pytest.raises(errors.ContentFiltered) as caught:
            ask(lm(server))
    assert len(server.bodies) == 1
    assert caught.value.usage.tokens == 10
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("finish", "kind"),
    [
        ("max-tokens", dn.ReplyTruncated),
        ("FinishReason.MAX_TOKENS", dn.ReplyTruncated),
        ("FINISH_REASON_MAX_TOKENS", dn.ReplyTruncated),
        (" Length ", dn.ReplyTruncated),
        ("max_tokens.", dn.ReplyTruncated),
        ("token_limit", dn.ReplyTruncated),
        ("content_filtered", errors.ContentFiltered),
        ("sensitive", errors.ContentFiltered),
        ("IMAGE_SAFETY", errors.ContentFiltered),
        ("insufficient_system_resource", errors.MalformedReply),
        ("network_error", errors.MalformedReply),
        ("time_limit", errors.MalformedReply),
        ("malformed_tool_use", errors.MalformedReply),
    ],
)
def test_every_providers_finish_reason_of_an_incomplete_reply_is_known(finish, kind):
    with Server(lambda b, n: body("half a rep", finish)) as server, pytest.raises(kind):
        ask(lm(server, retries=0))
    own = dn.FunctionLM(lambda request: dn.LMReply("answer: half", finish=finish))
    with pytest.raises(kind):
        dn.Predict("question -> answer", lm=own).run_sync(question="x")


class Finish(enum.IntEnum):
    STOP = 1
    MAX_TOKENS = 2


class Reason(str, enum.Enum):  # noqa: UP042  # as in packages of providers: str() returns another text
    CUT = "length"


@pytest.mark.parametrize("finish", [Finish.MAX_TOKENS, Reason.CUT])
def test_the_finish_reason_may_be_a_member_of_an_enumeration(finish):
    own = dn.FunctionLM(lambda request: dn.LMReply("answer: half", finish=finish))
    with pytest.raises(dn.ReplyTruncated):
        dn.Predict("question -> answer", lm=own).run_sync(question="x")


@pytest.mark.parametrize("finish", ["stop", "eos", "end_turn", "STOP", "stop.", "tool_calls", "", ".", None])
def test_a_complete_reply_is_accepted(finish):
    with Server(lambda b, n: body("whole", finish)) as server:
        assert ask(lm(server)).text == "whole"


def test_only_complete_choices_are_completions():
    whole = body("one")
    whole["choices"] += [
        {"message": {"content": "tw"}, "finish_reason": "length"},
        {"message": {"content": "three"}, "finish_reason": "stop"},
    ]
    assert read_reply(whole, "openai/m", {}).completions == ("one", "three")


# ── odd bodies ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _with(**message):
    return {"choices": [{"message": message, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "answer",
    [
        _with(content=12),
        _with(content=True),
        _with(content={"text": "x"}),
        _with(content=[{"type": "image_url", "image_url": {}}]),
        _with(content=[["x"]]),
        _with(content="x", tool_calls="f"),
        _with(content="x", tool_calls=[None]),
        _with(content="x", tool_calls=[{"function": {"name": 1}}]),
        _with(content="x", refusal=["no"]),
        {"choices": [{"message": {"content": "x"}, "finish_reason": 3}]},
        {"choices": [{"message": {"content": "x"}, "finish_reason": "stop", "error": {"message": "failed"}}]},
        {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "error": {"message": "failed"}},
        {"choices": [{"message": ["x"], "finish_reason": "stop"}]},
        {"choices": [{"message": "x"}]},
        {"choices": {"0": {"message": {"content": "x"}}}},
        {"choices": None},
        {"choices": [None]},
        {"choices": "x"},
        {"choices": [{"message": {"content": "x"}}, {"message": None}]},
        ["choices"],
        "choices",
        12,
        None,
    ],
    ids=lambda answer: json.dumps(answer)[:60],
)
def test_a_body_of_another_shape_is_a_malformed_reply_and_tried_again(answer):
    with Server(lambda b, n: web.json_response(answer) if n == 1 else "fine") as server:
        lm_reply = ask(lm(server))
    assert (lm_reply.text, lm_reply.usage.retries) == ("fine", 1)
    with pytest.raises(errors.MalformedReply):
        read_reply(answer, "openai/m", {})


REFERENCE = {"type": "reference", "reference_ids": [1, 2]}
UNKNOWN_PARTS = [REFERENCE, {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}}, {"type": ["x"]}]


@pytest.mark.parametrize("unknown", UNKNOWN_PARTS)
@pytest.mark.parametrize("place", [0, 1])
def test_a_part_of_an_unknown_type_beside_a_text_is_left_out(unknown, place):
    parts = [{"type": "text", "text": "Paris"}]
    parts.insert(place, unknown)
    request = dn.LMRequest(({"role": "user", "content": "hi"},))
    with Server(lambda b, n: _with(content=parts), streamed=[sse([[part] for part in parts])]) as server:
        whole = ask(lm(server))
        streamed = asyncio.run(lm(server).stream(request, lambda piece: None))
    assert (whole.text, whole.usage.retries, streamed.text) == ("Paris", 0, "Paris")


def test_a_tool_call_beside_a_part_of_an_unknown_type_is_read_and_nothing_else_is_no_reply():
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    assert read_reply(_with(content=[REFERENCE], tool_calls=[call]), "openai/m", {}).tool_calls == (call,)
    for content in ([REFERENCE], UNKNOWN_PARTS):
        with pytest.raises(errors.MalformedReply, match="damaged"):
            read_reply(_with(content=content), "openai/m", {})


def test_parts_of_text_are_joined_and_thinking_is_reasoning():
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "so "}, {"type": "text", "text": "it is"}]}
    parts = [thought, {"type": "text", "text": "4"}, {"type": "redacted_thinking", "data": "x"}, {"text": "2"}]
    lm_reply = read_reply(_with(content=parts), "openai/m", {})
    assert (lm_reply.text, lm_reply.reasoning) == ("42", "so it is")
    pieces = ReplyAssembler()
    received = [pieces.add({"choices": [{"delta": {"content": [part]}}]}, {}) for part in parts]
    pieces.add({"choices": [{"delta": {}, "finish_reason": "stop"}]}, {})
    lm_reply = read_reply(pieces.body({}), "openai/m", {})
    assert (received, lm_reply.text, lm_reply.reasoning) == (["", "4", "", "2"], "42", "so it is")


NAMES = st.sampled_from(
    [
        *("choices", "message", "delta", "content", "tool_calls", "function", "name", "arguments", "id", "type"),
        *("text", "thinking", "refusal", "finish_reason", "usage", "prompt_tokens", "completion_tokens", "index"),
        *("prompt_tokens_details", "cached_tokens", "reasoning_content", "error", "logprobs"),
    ]
)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["stop", "length", "text", "thinking", "", "x"]),
)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=20
)
MESSAGES = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("content", "tool_calls", "refusal", "reasoning_content", "reasoning"), JSON)
)
CHOICES = st.fixed_dictionaries({"message": MESSAGES | JSON}, optional={"finish_reason": PLAIN, "logprobs": JSON})
BODIES = JSON | st.fixed_dictionaries({"choices": st.lists(CHOICES, max_size=3)}, optional={"usage": JSON})


def has_right_types(lm_reply):
    usage = lm_reply.usage
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens)
    return (
        isinstance(lm_reply.text, str)
        and isinstance(lm_reply.tool_calls, tuple)
        and all(isinstance(call["function"]["name"], str) for call in lm_reply.tool_calls)
        and isinstance(lm_reply.finish, str | None)
        and isinstance(lm_reply.reasoning, str | None)
        and all(isinstance(text, str) for text in lm_reply.completions)
        and all(n is None or type(n) is int for n in counts)
    )


@given(BODIES)
def test_any_body_is_a_reply_of_the_right_types_or_a_model_error(answer):
    try:
        lm_reply = read_reply(answer, "openai/gpt-4.1-mini", {})
    except errors.ModelError:
        return
    assert has_right_types(lm_reply)


@given(
    st.lists(
        JSON.filter(lambda piece: isinstance(piece, dict))
        | st.fixed_dictionaries(
            {"choices": st.lists(st.fixed_dictionaries({"delta": MESSAGES | JSON}, optional={"finish_reason": PLAIN}))}
        ),
        max_size=4,
    )
)
def test_any_pieces_are_a_reply_of_the_right_types_or_a_model_error(answers):
    pieces = ReplyAssembler()
    try:
        for piece in answers:
            assert isinstance(pieces.add(piece, {}), str)
        lm_reply = read_reply(pieces.body({}), "openai/gpt-4.1-mini", {})
    except errors.ModelError:
        return
    assert has_right_types(lm_reply)


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
ENDLESS = """
import asyncio
from aiohttp import web
import dspynb as dn
from dspynb.errors import ModelError

async def endless(request):
    kind, status = request.match_info["kind"], 500 if request.match_info["kind"] == "error" else 200
    content = "text/event-stream" if kind == "stream" else "application/json"
    response = web.StreamResponse(status=status, headers={"Content-Type": content})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "' if kind == "body" else b"data: ")
    while True:
        await response.write(b"a" * 2**20)

async def main():
    app = web.Application()
    app.router.add_post("/{kind}/chat/completions", endless)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    request = dn.LMRequest(({"role": "user", "content": "hi"},))
    for kind in ("body", "stream", "error"):
        lm = dn.LM("openai/m", api_base=f"http://127.0.0.1:{port}/{kind}", retries=0, cache=False)
        try:
            await (lm.stream(request, lambda text: None) if kind == "stream" else lm.complete(request))
        except ModelError as error:
            print(kind, type(error).__name__, str(error)[:200])
    await runner.cleanup()
    with open("/proc/self/status") as status:  # getrusage would include the memory of the process that started this one
        print("MiB", next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))

asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_an_endless_body_ends_with_an_error_and_takes_bounded_memory():
    done = subprocess.run([sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=100, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    assert lines[0].startswith("body MalformedReply")
    assert "more than 64 MiB" in lines[0]
    assert lines[1].startswith("stream MalformedReply")
    assert "more than 16 MiB" in lines[1]
    assert lines[2].startswith("error ServerError")
    assert int(lines[3].split()[1]) < 1000  # includes the server's buffers; without a limit it grows by gigabytes


def test_a_long_error_text_is_cut_before_it_is_redacted_and_shows_no_key(monkeypatch):
    text = f"{KEY} failed: " + "word " * 4_000_000 + KEY
    with Server(lambda b, n: web.json_response({"error": {"message": text}}, status=400)) as server:
        with pytest.raises(errors.BadRequestError) as caught:
            ask(lm(server))
    assert len(str(caught.value)) < 1_000
    assert KEY not in str(caught.value)
    cleaned = []
    redact = openai_format.redact
    monkeypatch.setattr(openai_format, "redact", lambda part: cleaned.append(len(part)) or redact(part))
    shortened = excerpt(text, 400)
    assert max(cleaned) < 100_000
    assert shortened.startswith("*** failed: word")


@given(st.integers(0, 40_000), st.integers(0, 400))
def test_an_excerpt_shows_no_part_of_a_key_wherever_it_stands(before, gap):
    dn.LM("openai/m", api_key=KEY)
    shortened = excerpt("a" * before + " " * gap + KEY + " " * gap + "b" * (40_000 - before), 400)
    assert KEY[:12] not in shortened
    assert KEY[-12:] not in shortened
