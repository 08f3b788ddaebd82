"""Several completions of one call, log probabilities, and replies that were cut and are accepted."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import warnings

import pytest
from aiohttp import web

import dspynb as dn
from dspynb.errors import ParseError, Refused, ReplyTruncated
from dspynb.lm.cache import default_cache
from tests.helpers import chat
from tests.lm.server import Server, reply

OF_LITELLM = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
each_engine = pytest.mark.parametrize("engine", ["direct", pytest.param("litellm", marks=OF_LITELLM)])
pytestmark = pytest.mark.filterwarnings("ignore::dspynb.errors.TruncatedReplyWarning")

PARIS = chat(answer="Paris")
LYON = chat(answer="Lyon")


def choices(*texts, finishes=(), **first):
    """The body of a chat completion with a choice for each text. ``first``: fields of the first choice."""
    body = reply("")
    body["choices"] = []
    for index, text in enumerate(texts):
        finish = finishes[index] if finishes else "stop"
        message = {"role": "assistant", "content": text}
        body["choices"].append({"index": index, "message": message, "finish_reason": finish})
    body["choices"][0].update(first)
    return body


def model(server, **settings):
    return dn.LM("openai/m", api_base=server.base, api_key="sk-a-key-of-the-tests-0123456789", **settings)


def predict(lm, signature="question -> answer", **settings):
    return dn.Predict(signature, lm=lm, **settings).run_sync(question="A city?")


def answers(prediction):
    return [completion.answer for completion in prediction.completions]


def from_texts(*texts, signature="question -> answer", **settings):
    lm = dn.FunctionLM(lambda request: dn.LMReply(texts[0], completions=texts))
    return predict(lm, signature, n=len(texts), **settings)


@pytest.fixture
def cached(monkeypatch, tmp_path):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "cache"))
    with dn.context(cache=True):
        yield
    default_cache().flush()


# ── completions ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_completions_are_read_as_in_dspy():
    prediction = from_texts(PARIS, LYON)
    assert isinstance(prediction.completions, list)
    assert prediction.completions[0] is prediction
    assert prediction.completions.answer == ["Paris", "Lyon"]
    assert dn.majority(prediction.completions).answer == "Paris"
    with pytest.raises(AttributeError, match="no field 'city'"):
        _ = prediction.completions.city


def test_one_completion_is_a_list_of_the_prediction():
    prediction = from_texts(PARIS)
    assert prediction.completions == [prediction]
    assert predict(dn.ScriptedLM([PARIS])).completions.answer == ["Paris"]


def test_a_field_named_completions_is_the_output():
    prediction = predict(dn.ScriptedLM([chat(completions="two")]), "question -> completions")
    assert prediction.completions == "two"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((chat(answer="1"), chat(answer="many"), chat(answer="3")), [1, 3]),
        ((chat(answer="many"), chat(answer="2")), [2]),
        (("", chat(answer="2")), [2]),
        (("<think>5", chat(answer="2"), "6</think>" + chat(answer="3")), [2, 3]),
    ],
)
def test_a_completion_that_cannot_be_read_is_left_out_and_costs_no_repair(texts, expected):
    prediction = from_texts(*texts, signature="question -> answer: int")
    assert (answers(prediction), prediction.answer, prediction.usage.calls) == (expected, expected[0], 1)


def test_the_first_completion_is_repaired_if_none_can_be_read():
    lm = dn.ScriptedLM([dn.LMReply("no", completions=("no", "nothing")), chat(answer="3")])
    prediction = predict(lm, "question -> answer: int", n=2)
    assert (answers(prediction), prediction.usage.calls) == ([3], 2)
    assert lm.requests[1].messages[-2]["content"] == "no"
    with pytest.raises(ParseError):
        from_texts("no", "nothing", adapter=dn.ChatAdapter(repair=False))


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_the_first_whole_completion_is_the_prediction(finish):
    body = choices("[[ ## answer ## ]]\nPa", LYON, finishes=(finish, "stop"))
    with Server(lambda b, n: body) as server:
        assert answers(predict(model(server), n=2)) == ["Lyon"]


def test_a_refusal_of_all_completions_is_an_error():
    body = choices("", "")
    for choice in body["choices"]:
        choice["message"]["refusal"] = "No."
    with Server(lambda b, n: body) as server, pytest.raises(Refused, match="No"):
        predict(model(server), n=2)


def streamed(*pieces, done=b"data: [DONE]\n\n"):
    """A stream of the pieces: pairs of a choice's index and its text, or chunks."""

    async def answer(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            chunk = piece
            if isinstance(piece, tuple):
                index, text = piece
                chunk = {"index": index, "delta": {"content": text}, "finish_reason": None if text else "stop"}
            body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [chunk]}
            await response.write(b"data: " + json.dumps(body).encode() + b"\n\n")
        await response.write(done)
        return response

    return answer


def parts_of(server, **settings):
    program = dn.Predict("question -> answer", lm=model(server, **settings))

    async def main():
        return [part async for part in program.stream(question="A city?")]

    return asyncio.run(main())


@each_engine
@pytest.mark.parametrize("ends", [[(1, ""), (0, "")], [(0, ""), (1, "")]])
def test_the_first_completion_is_streamed_and_all_can_be_reached(engine, ends):
    pieces = [(0, PARIS[:20]), (1, LYON[:25]), (1, LYON[25:]), (0, PARIS[20:]), *ends]
    with Server(streamed=[streamed(*pieces)]) as server:
        parts = parts_of(server, n=2, engine=engine)
    assert "".join(part.delta for part in parts[:-1]) == "Paris"
    assert answers(parts[-1]) == ["Paris", "Lyon"]


def test_a_completion_that_a_stream_does_not_end_is_left_out():
    with Server(streamed=[streamed((0, PARIS), (1, LYON), (2, LYON), (2, ""), (0, ""))]) as server:
        assert answers(parts_of(server, n=3)[-1]) == ["Paris", "Lyon"]


@pytest.mark.parametrize("index", [-1, 1.5, "1", 10**9, [1]])
def test_a_piece_with_a_strange_index_is_damaged(index):
    with Server(streamed=[streamed((0, PARIS), (index, LYON), (0, ""))]) as server:
        with pytest.raises(dn.errors.MalformedReply, match="damaged"):
            parts_of(server, retries=0)


def test_completions_survive_a_module_a_copy_and_a_search():
    lm = dn.FunctionLM(lambda request: dn.LMReply(PARIS, completions=(PARIS, LYON)))
    program = dn.Predict("question -> answer", lm=lm, n=2)

    class Wrapped(dn.Module):
        def __init__(self):
            self.ask = program

        async def forward(self, question):
            return await self.ask(question=question)

    best = dn.BestOfN(program, reward=lambda row, prediction: 1.0, n=2)
    for prediction in (Wrapped().run_sync(question="?"), best.run_sync(question="?")):
        assert prediction.completions[0] is prediction
        assert answers(prediction) == ["Paris", "Lyon"]


def test_completions_are_replayed():
    program = dn.Predict("question -> answer: int", n=2)
    lm = dn.FunctionLM(lambda request: dn.LMReply("x", completions=("x", chat(answer="1"), chat(answer="2"))))
    with dn.trace() as trace, dn.context(lm=lm):
        program.run_sync(question="?")
    assert answers(dn.run_sync(lambda: dn.replay(trace, program)).prediction) == [1, 2]


def test_completions_are_recorded(tmp_path):
    lm = dn.FunctionLM(lambda request: dn.LMReply(PARIS, completions=(PARIS, LYON)))
    path = tmp_path / "replies.jsonl"
    assert answers(predict(dn.recorded(path, lm=lm), n=2)) == ["Paris", "Lyon"]
    assert answers(predict(dn.recorded(path), n=2)) == ["Paris", "Lyon"]


# ── log probabilities ─────────────────────────────────────────────────────────────────────────────────────────────────
def token(text, logprob):
    return {"token": text, "logprob": logprob, "bytes": None, "top_logprobs": []}


@each_engine
def test_a_prediction_has_the_log_probabilities_of_its_reply(engine, cached):
    logprobs = {"content": [token("Par", -0.1), token("is", -0.2)], "refusal": None}
    with Server(lambda b, n: choices(PARIS, logprobs=logprobs)) as server:
        lm = model(server, logprobs=True, engine=engine)
        predictions = [predict(lm), predict(lm)]
    assert [server.bodies[0]["logprobs"], len(server.bodies)] == [True, 1]
    for prediction in predictions:
        assert [part["logprob"] for part in prediction.logprobs["content"]] == [-0.1, -0.2]
        assert prediction.meta.logprobs is prediction.logprobs


@each_engine
def test_a_streamed_prediction_has_the_log_probabilities_of_all_pieces(engine):
    first = {"index": 0, "delta": {"content": PARIS}, "logprobs": {"content": [token("Par", -0.1)]}}
    second = {"index": 0, "delta": {"content": "\n"}, "logprobs": {"content": [token("is", -0.2)], "refusal": None}}
    other = {"index": 1, "delta": {"content": "x"}, "logprobs": {"content": [token("x", -9.0)]}}
    with Server(streamed=[streamed(first, other, second, (0, ""))]) as server:
        prediction = parts_of(server, logprobs=True, engine=engine)[-1]
    assert [part["logprob"] for part in prediction.logprobs["content"]] == [-0.1, -0.2]


def test_without_log_probabilities_there_are_none():
    assert predict(dn.ScriptedLM([PARIS])).logprobs is None
    assert predict(dn.ScriptedLM([chat(logprobs="x")]), "question -> logprobs").logprobs == "x"


# ── truncated="accept" ────────────────────────────────────────────────────────────────────────────────────────────────
CUT = "[[ ## answer ## ]]\nThe capital of France is Par"


def cut(text, **message):
    body = reply(text, **message)
    body["choices"][0]["finish_reason"] = "length"
    return body


@each_engine
def test_an_accepted_cut_reply_is_the_prediction_and_is_said_once(engine):
    with Server(lambda b, n: cut(CUT)) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lm = model(server, truncated="accept", max_tokens=8, engine=engine)
        predictions = [predict(lm), predict(lm)]
    said = [str(one.message) for one in caught if one.category is dn.TruncatedReplyWarning]
    assert said == [
        "openai/m: the reply was cut at max_tokens=8 (raise it); it is used as it is, since truncated='accept'"
    ]
    for prediction in predictions:
        assert (prediction.answer, prediction.truncated) == ("The capital of France is Par", True)
        assert prediction.run.calls.truncated.tolist() == [True]


def test_an_accepted_cut_reply_is_never_cached(cached):
    bodies = [cut(CUT), reply(PARIS)]
    with Server(lambda b, n: bodies.pop(0)) as server:
        lm = model(server, truncated="accept")
        predictions = [predict(lm), predict(lm), predict(lm)]
    assert [prediction.answer for prediction in predictions] == ["The capital of France is Par", "Paris", "Paris"]
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("adapter", "text", "outputs"),
    [
        ("chat", "[[ ## answer ## ]]\nParis\n\n[[ ## count ## ]]\n1", {"answer": "Paris", "count": 1, "note": None}),
        ("chat", "[[ ## answer ## ]]\nPar", {"answer": "Par", "count": None, "note": None}),
        ("json", '{"answer": "Paris", "count": 2, "no', {"answer": "Paris", "count": 2, "note": None}),
        ("json", '{"answer": "Par', {"answer": "Par", "count": None, "note": None}),
        ("prefill", " Paris\nCount: 3\nNo", {"answer": "Paris", "count": 3, "note": None}),
    ],
)
def test_an_accepted_cut_reply_is_read_as_far_as_it_goes(adapter, text, outputs):
    with Server(lambda b, n: cut(text)) as server:
        prediction = predict(model(server, truncated="accept"), "question -> answer, count: int, note", adapter=adapter)
    assert (prediction.to_dict(), prediction.truncated, prediction.usage.calls) == (outputs, True, 1)


def test_a_cut_reply_without_any_output_is_an_error_and_not_repaired():
    with Server(lambda b, n: cut("Well, let me")) as server, pytest.raises(ParseError):
        predict(model(server, truncated="accept"))
    assert len(server.bodies) == 1


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize(
    "body",
    [
        cut("", reasoning_content="hm"),
        cut("<think>hm"),
        cut("", tool_calls=[CALL]),
        cut("Look.", tool_calls=[CALL]),
    ],
    ids=["thinking", "thinking in the text", "a tool call", "text and a tool call"],
)
def test_a_cut_reply_without_an_answer_is_an_error_in_any_case(body):
    with Server(lambda b, n: body) as server, pytest.raises(ReplyTruncated):
        predict(model(server, truncated="accept"))


def test_an_agent_calls_no_tool_with_a_part_of_its_arguments():
    def serve(body, number):
        if "`[[ ## next_tool_name ## ]]`" in json.dumps(body["messages"]):
            if number == 1:
                return cut(chat(next_thought="On.", next_tool_name="pay", next_tool_args='{"usd": 1}'))
            return reply(chat(next_thought="On.", next_tool_name="finish", next_tool_args="{}"))
        return reply(PARIS)

    paid = []

    def pay(usd: int) -> str:
        paid.append(usd)
        return "paid"

    with Server(serve) as server, dn.context(lm=model(server, truncated="accept")):
        assert dn.ReAct("question -> answer", [pay], native=False).run_sync(question="?").answer == "Paris"
    assert paid == []


def test_an_accepted_cut_reply_is_never_a_demo():
    with Server(lambda b, n: cut(CUT)) as server:
        program = dn.Predict("question -> answer", lm=model(server, truncated="accept"))
        rows = [{"question": f"{i}?", "answer": "The capital of France is Par"} for i in range(3)]
        better = dn.BootstrapFewShot(dn.metrics.exact_match(), max_labeled_demos=0).compile_sync(program, rows)
    assert better.demos == []


def test_an_accepted_cut_reply_is_never_a_proposal():
    task = dn.FunctionLM(lambda request: LYON)
    with Server(lambda b, n: cut("[[ ## proposed_instruction ## ]]\nAnswer in dig")) as server:
        writer = model(server, truncated="accept")
        opt = dn.COPRO(dn.metrics.exact_match(), prompt_lm=writer)
        with pytest.raises(dn.OptimizerError, match="cut"):
            opt.compile_sync(dn.Predict("question -> answer", lm=task), [{"question": "?", "answer": "Paris"}])


def test_an_accepted_cut_reply_is_accepted_in_a_replay_a_subclass_and_behind_a_recording(tmp_path):
    class Own(dn.LM):
        async def complete(self, request):
            return await super().complete(request)

    path = tmp_path / "replies.jsonl"
    with Server(lambda b, n: cut(CUT)) as server:
        own = Own("openai/m", api_base=server.base, truncated="accept")
        lm = model(server, truncated="accept")
        program = dn.Predict("question -> answer", lm=lm)
        with dn.trace() as trace:
            program.run_sync(question="?")
        replayed = dn.run_sync(lambda: dn.replay(trace, program)).prediction
        predictions = [predict(own), predict(dn.recorded(path, lm=lm)), replayed, predict(copy.copy(lm))]
        predictions.append(predict(pickle.loads(pickle.dumps(lm))))
    assert [prediction.truncated for prediction in predictions] == [True] * 5
    assert not path.exists()


def test_a_streamed_cut_reply_is_accepted():
    end = {"index": 0, "delta": {}, "finish_reason": "length"}
    with Server(streamed=[streamed((0, CUT), end)]) as server:
        prediction = parts_of(server, truncated="accept")[-1]
    assert (prediction.answer, prediction.truncated) == ("The capital of France is Par", True)


def test_a_wrong_value_of_truncated_is_refused():
    with pytest.raises(dn.errors.ConfigurationError, match="truncated"):
        dn.LM("openai/m", truncated="yes")
