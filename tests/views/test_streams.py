"""The live view shows the thinking and the text of streamed calls while they arrive, and afterwards the record."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest
from aiohttp import web

import dspynb as dn
from dspynb.errors import ConnectionFailed
from dspynb.redact import keep_secret, known_secrets
from dspynb.running.record import RunRecord
from dspynb.running.streamed_calls import StreamedCall, StreamedCalls
from dspynb.thinking import ALL_TAGS, split_growing
from dspynb.views.live import live_view
from dspynb.views.live.live_view import LiveView
from dspynb.views.streams import live_row
from dspynb.views.view_model import ViewModel
from tests.helpers import chat
from tests.lm.server import Server, error
from tests.views.fakes import FrontEnd

ANSWER = chat(sentence="blue")
END = object()


class Writing:
    """A model that writes the pieces which a test gives it. ``END`` ends the reply; an exception is raised."""

    name = "writing"

    def __init__(self):
        self.pieces = asyncio.Queue()

    def write(self, *pieces):
        for piece in pieces:
            self.pieces.put_nowait(piece)

    async def complete(self, request):
        raise AssertionError("the reply is not streamed")

    async def stream(self, request, on_piece):
        text = ""
        piece = await self.pieces.get()
        while piece is not END:
            if isinstance(piece, Exception):
                raise piece
            text += piece
            on_piece(piece)
            piece = await self.pieces.get()
        return dn.LMReply(text)


class Streaming(dn.Module):
    """A program that streams its predictor."""

    def __init__(self, lm, signature="subject -> sentence"):
        self.step = dn.Predict(signature, lm=lm)

    async def forward(self, subject):
        async for part in self.step.stream(subject=subject):
            prediction = part
        return prediction


def search(program):
    """A search of one attempt, so that the call is inside a row."""
    return dn.BestOfN(program, lambda row, prediction: 1.0, n=1)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # a view has no event to wait for
            await asyncio.sleep(0.01)


def watch(run):
    """A front end that watches a run."""
    view = LiveView(run, asyncio.get_running_loop())
    run.watch(view.changed)
    front = FrontEnd(view)
    view.open(front)
    return front


def line_of(front):
    """The line about streamed calls of the only row; empty if it has none."""
    rows = list(front.rows.values())
    return rows[0].get("live", "") if rows else ""


async def detail_of(front):
    """The detail of the only row, as a page that selects the row has it."""
    key = next(iter(front.rows))
    front.view.message({"type": "detail", "key": key})
    return front.details[key]


def kinds(detail):
    return [block["kind"] for block in detail["blocks"]]


async def ended(run):
    """Wait for the end of a run, however it ends."""
    await asyncio.wait([run.task])


# ── a model of a user ───────────────────────────────────────────────────────────────────────────────────────────────
def test_the_thinking_in_a_text_is_shown_while_it_is_written():
    async def main():
        lm = Writing()
        run = search(Streaming(lm)).start(subject="sea")
        front = watch(run)
        await until(lambda: line_of(front) == "waiting for the first words")
        lm.write("<think>The sea ", "is wide.")
        await until(lambda: line_of(front) == "thinking · 16 characters · The sea is wide.")
        detail = await detail_of(front)
        assert kinds(detail) == ["sent", "sent", "live"]
        assert "sea" in detail["blocks"][1]["text"]
        assert detail["blocks"][2]["live"]["thinking"] == "The sea is wide."
        lm.write(" And blue.</think>", ANSWER)
        key = next(iter(front.rows))
        await until(lambda: front.live.get(key) and front.live[key][0]["reply"] == ANSWER)
        assert front.live[key][0]["thinking"] == "The sea is wide. And blue."
        assert line_of(front).startswith(f"reply · {len(ANSWER)} characters · ")
        lm.write(END)
        await ended(run)
        await until(lambda: not line_of(front))
        shown = ViewModel(run.record).detail(key)
        assert kinds(shown) == ["sent", "sent", "reasoning", "reply", "record"]
        assert shown["blocks"][2]["text"] == "The sea is wide. And blue."

    asyncio.run(main())


def test_plain_calls_of_a_model_that_always_streams_are_shown_too():
    async def main():
        lm = Writing()
        lm.streaming = True
        run = search(dn.Predict("subject -> sentence", lm=lm)).start(subject="sea")
        front = watch(run)
        lm.write("<think>The sea.")
        await until(lambda: "The sea." in line_of(front))
        lm.write("</think>", ANSWER, END)
        await ended(run)
        assert run.calls.reasoning.tolist() == ["The sea."]
        assert run.calls.reply.tolist() == [ANSWER]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("pieces", "thinking", "reply"),
    [
        (["<thi", "nk>a", "b</th", "ink>\n[["], "ab", "[["),
        (["[THINK]ab", "[/THINK]", "[["], "ab", "[["),
        (["<think>a</think><think>b"], "ab", ""),
        (["ab\n</think>\n[["], "ab", "[["),
        (["[[ ## answer"], "", "[[ ## answer"),
        (["<thi"], "", ""),
        (["<reasoning>ab"], "ab", ""),
    ],
)
def test_thinking_between_marks_is_split_off(pieces, thinking, reply):
    call = StreamedCall("self", 0, (), ALL_TAGS)
    for piece in pieces:
        call.add_text(piece)
        shown = call.read()
    assert (shown.thinking, shown.text) == (thinking, reply)


def test_the_text_of_a_model_that_begins_within_its_thinking_is_thinking_until_the_mark():
    call = StreamedCall("self", 0, (), begins_within_thinking=True)
    call.add_text("I add.")
    assert call.read()[:2] == ("I add.", "")
    call.add_text("\n</think>\n4")
    assert call.read()[:2] == ("I add.", "4")


def test_a_long_reply_that_is_read_often_is_searched_a_few_times_only(monkeypatch):
    searched = []

    def split(text, tags):
        searched.append(len(text))
        return split_growing(text, tags)

    monkeypatch.setattr("dspynb.running.streamed_calls.split_growing", split)
    call = StreamedCall("self", 0, ())
    call.add_text("<think>")
    for number in range(1, 3001):
        call.add_text("words, words, " * 10)
        assert len(call.read().thinking) in (140 * number, 140 * number - 1)  # with or without the last space
    assert sum(searched) < 100 * 420_000
    call.add_text("</think>" + "x" * 100_000)
    assert call.read().text == "x" * 100_000


@pytest.mark.parametrize("end", [ConnectionFailed("gone"), "stop"])
def test_the_thinking_of_a_call_that_does_not_end_is_recorded(end):
    async def main():
        lm = Writing()
        run = search(Streaming(lm)).start(subject="sea")
        front = watch(run)
        lm.write("<think>The sea is", " wide.")
        await until(lambda: "wide." in line_of(front))
        if end == "stop":
            run.stop()
        else:
            lm.write(end)
        await ended(run)
        await until(lambda: not line_of(front))
        assert not run.record.streams.pending
        [call] = run.record.calls
        assert call.error
        assert call.reasoning == "The sea is wide."
        assert dn.history(1)[0] is call
        assert run.calls.reasoning.tolist() == ["The sea is wide."]
        key = next(iter(front.rows))
        assert kinds(ViewModel(run.record).detail(key)) == ["sent", "sent", "reasoning", "error", "record"]

    asyncio.run(main())


def test_a_call_outside_of_all_rows_has_a_row_while_it_is_streamed():
    async def main():
        lm = Writing()
        run = Streaming(lm).start(subject="sea")
        front = watch(run)
        lm.write("<think>The sea.")
        await until(lambda: "The sea." in line_of(front))
        assert [(row["key"], row["state"], row["about"]) for row in front.rows.values()] == [
            ("call 0", "running", "step")
        ]
        assert kinds(await detail_of(front)) == ["sent", "sent", "live"]
        lm.write("</think>", ANSWER, END)
        await ended(run)
        await until(lambda: front.rows["call 0"]["state"] == "done")
        assert front.rows["call 0"]["outputs"] == "blue"

    asyncio.run(main())


def test_streamed_calls_at_the_same_time_are_shown_in_their_own_rows():
    async def main():
        models = [Writing(), Writing()]

        class Pair(dn.Module):
            def __init__(self):
                self.first = Streaming(models[0])
                self.second = Streaming(models[1])

            async def forward(self, subject):
                both = await asyncio.gather(self.first(subject=subject), self.second(subject=subject))
                return both[0]

        run = Pair().start(subject="sea")
        front = watch(run)
        models[0].write("<think>one")
        models[1].write("<think>two")
        await until(lambda: len(front.rows) == 2)
        await until(lambda: [row.get("live", "")[-3:] for row in front.rows.values()] == ["one", "two"])
        models[1].write("</think>", ANSWER, END)  # the second one ends first, and takes the first row
        await until(lambda: sorted(row["state"] for row in front.rows.values()) == ["done", "running"])
        await until(lambda: front.rows["call 1"].get("live", "").endswith("one"))
        assert "live" not in front.rows["call 0"]
        models[0].write("</think>", ANSWER, END)
        await ended(run)
        assert front.rows == {row["key"]: row for row in ViewModel(run.record).payloads()}

    asyncio.run(main())


def test_the_row_around_an_attempt_shows_its_streamed_call():
    async def main():
        lm = Writing()
        run = dn.Evaluate(lambda row, prediction: 1.0).start(search(Streaming(lm)), [dn.Example(subject="sea")])
        front = watch(run)
        lm.write("<think>The sea.")
        await until(lambda: "The sea." in line_of(front))
        assert list(front.rows) == [row["key"] for row in ViewModel(run.record).payloads()]
        lm.write("</think>", ANSWER, END)
        await ended(run)

    asyncio.run(main())


def test_a_page_opened_late_shows_the_thinking_so_far():
    async def main():
        lm = Writing()
        run = search(Streaming(lm)).start(subject="sea")
        lm.write("<think>The sea.")
        await until(lambda: any(call.size for call in run.record.streams.pending.values()))
        front = watch(run)
        assert line_of(front) == "thinking · 8 characters · The sea."
        lm.write("</think>", ANSWER, END)
        await ended(run)

    asyncio.run(main())


def test_no_secret_in_the_thinking_is_sent(monkeypatch):
    secret = "sk-streamed-secret-0123456789"  # noqa: S105  # not a real one
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    assert secret in known_secrets()

    async def main():
        lm = Writing()
        run = search(Streaming(lm)).start(subject="sea")
        front = watch(run)
        lm.write("<think>The key is ", secret[:14])
        await until(lambda: "thinking" in line_of(front))
        await detail_of(front)
        lm.write(secret[14:], " indeed.")
        await until(lambda: "indeed." in line_of(front))
        lm.write(ConnectionFailed("gone"))
        await ended(run)
        assert run.record.calls[0].reasoning == "The key is *** indeed."
        assert secret[:14] not in json.dumps(front.messages)

    asyncio.run(main())


@pytest.mark.parametrize("words", [0, 1, 7, 23, 50])
def test_no_part_of_a_secret_that_a_text_repeats_is_shown_where_the_text_is_cut(monkeypatch, words):
    secret = "sk-proj-" + "".join(chr(97 + number % 26) for number in range(43))
    keep_secret(secret)
    stream = StreamedCall("self", 1, ())
    stream.add_thinking("x" * words + f"{secret} " * 600)
    shown = json.dumps(live_row([stream], with_texts=True))
    assert "***" in shown
    assert not any(secret[start : start + 6] in shown for start in range(len(secret) - 6))


def test_the_reply_is_shown_as_such_as_soon_as_long_thinking_in_the_text_has_ended():
    stream = StreamedCall("self", 1, ())
    stream.add_text("<think>" + "long " * 5_000)
    assert not stream.read().is_finished
    stream.add_text("</think>The answer is 4")
    assert stream.read().text == "The answer is 4"


def test_no_piece_is_lost_where_two_views_read_while_pieces_arrive():
    stream = StreamedCall("self", 1, ())
    stop = threading.Event()

    def read():
        while not stop.is_set():
            stream.read()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(3_000):
        stream.add_text(f"{number} ")
    stop.set()
    for reader in readers:
        reader.join()
    assert stream.read().text == "".join(f"{number} " for number in range(3_000))


def test_a_subclass_with_its_own_complete_is_called_through_it_although_it_streams():
    class Own(dn.LM):
        async def complete(self, request):
            return dn.LMReply(chat(sentence="own"))

    lm = Own("openai/x", api_base="http://127.0.0.1:1/v1", api_key="k", streaming=True, retries=0)
    assert dn.Predict("subject -> sentence", lm=lm).run_sync(subject="x").sentence == "own"


def test_the_end_of_very_long_thinking_is_shown():
    async def main():
        lm = Writing()
        run = search(Streaming(lm)).start(subject="sea")
        front = watch(run)
        lm.write("<think>" + "a word " * 20_000, "the end")
        await until(lambda: "the end" in line_of(front))
        thinking = (await detail_of(front))["blocks"][2]["live"]["thinking"]
        assert thinking.startswith("[120,007 earlier characters] … ")
        assert thinking.endswith("a word the end")
        assert len(thinking) < 20_100
        lm.write("</think>", ANSWER, END)
        await ended(run)

    asyncio.run(main())


def test_a_view_that_fails_does_not_disturb_the_call():
    calls = StreamedCalls()
    seen = []

    def fail():
        raise OSError("the loop is closed")

    calls.watch(fail)
    calls.watch(lambda: seen.append(1))
    call = StreamedCall("self", 0, ())
    calls.add(call)
    call.add_text("a")
    assert seen == [1, 1]


def test_pieces_are_sent_in_few_batches():
    rows = 64
    pieces = 100

    class Chatty(Writing):
        async def stream(self, request, on_piece):
            on_piece("<think>")
            for number in range(pieces):
                await asyncio.sleep(0.01)
                on_piece(f"word {number} ")
            on_piece(f"</think>{ANSWER}")
            return dn.LMReply(f"<think>a</think>{ANSWER}")

    async def main():
        examples = [dn.Example(subject=str(number)) for number in range(rows)]
        evaluation = dn.Evaluate(lambda row, prediction: 1.0, concurrency=rows)
        run = evaluation.start(Streaming(Chatty()), examples)
        front = watch(run)
        front.clock = time.monotonic
        began = time.monotonic()
        await ended(run)
        seconds = time.monotonic() - began
        assert run.record.ended.status == "finished"
        assert len(front.messages) <= seconds / live_view.INTERVAL + 2
        with_texts = [message for message in front.deltas if "live" in message]
        assert with_texts
        assert len(with_texts) <= seconds / live_view.LIVE_INTERVAL + 2
        assert max(len(message["live"]) for message in with_texts) == rows
        assert max(len(json.dumps(message["live"])) for message in with_texts) < 200 * rows

    asyncio.run(main())


# ── over HTTP ───────────────────────────────────────────────────────────────────────────────────────────────────────
class Steps:
    """A streamed response in steps: ``go`` lets it send the next step."""

    def __init__(self, *steps, finish="stop", usage=None):
        self.steps = steps
        self.finish = finish
        self.usage = usage
        self._turns = threading.Semaphore(1)

    def go(self):
        self._turns.release()

    async def __call__(self, request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for step in self.steps:
            await asyncio.to_thread(self._turns.acquire, timeout=30)
            for event in step:
                await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        if self.finish:
            last = {"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish}], "usage": self.usage}
            await response.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
        return response


def delta(**fields):
    return {"choices": [{"index": 0, "delta": fields}]}


def over_http(scenario, *answers, runs_dir=None, **settings):
    """Run ``scenario(run, front)`` with a search over a server that streams these answers."""
    with Server(lambda body, number: error(500), streamed=list(answers)) as server:

        async def main():
            lm = dn.LM("openai/m", api_base=server.base, api_key="k" * 20, streaming=True, cache=False, **settings)
            with dn.context(runs_dir=runs_dir):
                run = search(dn.Predict("subject -> sentence", lm=lm)).start(subject="sea")
                await scenario(run, watch(run))
                await ended(run)
            return run

        return asyncio.run(main())


@pytest.mark.parametrize(
    "pieces",
    [
        [{"reasoning_content": "The sea "}, {"reasoning_content": "is wide."}],
        [{"reasoning": "The sea "}, {"reasoning": "is wide."}],
        [{"reasoning_details": [{"type": "reasoning.text", "text": text}]} for text in ("The sea ", "is wide.")],
        [{"thinking_blocks": [{"type": "thinking", "thinking": text}]} for text in ("The sea ", "is wide.")],
        [{"content": [{"type": "thinking", "thinking": text}]} for text in ("The sea ", "is wide.")],
        [{"content": "<think>The sea "}, {"content": "is wide."}],
    ],
)
def test_a_plain_call_of_a_streaming_model_shows_the_thinking_of_every_form(pieces):
    closing = "</think>" if "<think>" in str(pieces[0]) else ""
    steps = Steps([delta(**pieces[0])], [delta(**pieces[1])], [delta(content=closing + ANSWER)])

    async def scenario(run, front):
        await until(lambda: "characters · The sea" in line_of(front))
        steps.go()
        await until(lambda: line_of(front) == "thinking · 16 characters · The sea is wide.")
        steps.go()

    run = over_http(scenario, steps)
    assert run.calls.reasoning.tolist() == ["The sea is wide."]
    assert run.record.calls[0].outputs == {"sentence": "blue"}


def test_thinking_that_never_ends_is_cut_and_recorded():
    steps = Steps([delta(reasoning_content="The sea is wide.")], [], finish="length")

    async def scenario(run, front):
        await until(lambda: "wide." in line_of(front))
        steps.go()
        await ended(run)
        await until(lambda: not line_of(front))

    run = over_http(scenario, steps)
    assert "ReplyTruncated" in run.record.calls[0].error
    assert run.calls.reasoning.tolist() == ["The sea is wide."]


def test_a_retry_begins_its_thinking_anew():
    broken = Steps([delta(reasoning_content="First try.")], [], finish=None)
    steps = Steps([delta(reasoning_content="Second try.")], [delta(content=ANSWER)])

    async def scenario(run, front):
        await until(lambda: "First try." in line_of(front))
        broken.go()
        await until(lambda: line_of(front) == "thinking · 11 characters · Second try.")
        steps.go()

    run = over_http(scenario, broken, steps, retries=1)
    assert run.calls.reasoning.tolist() == ["Second try."]
    assert run.usage.retries == 1


def test_thinking_that_is_only_encrypted_has_no_text_and_the_view_says_so():
    encrypted = [{"type": "reasoning.encrypted", "data": "Z2hvc3Q="}]
    usage = {"prompt_tokens": 7, "completion_tokens": 90, "completion_tokens_details": {"reasoning_tokens": 61}}
    steps = Steps([delta(reasoning_details=encrypted)], [delta(content=ANSWER)], usage=usage)

    async def scenario(run, front):
        await until(lambda: line_of(front) == "waiting for the first words")
        steps.go()

    run = over_http(scenario, steps)
    assert run.calls.reasoning.tolist() == [None]
    assert run.calls.reasoning_tokens.tolist() == [61]
    detail = ViewModel(run.record).detail(str(next(iter(run.record.attempts))))
    block = next(block for block in detail["blocks"] if block["kind"] == "reasoning")
    assert block["heading"] == "self · reasoning · 61 tokens · its text is not available"
    assert not block["text"]
    assert "61 tokens · its text is not available" in repr(dn.history(1))


def test_the_run_file_has_the_final_record_only(tmp_path):
    words = [delta(reasoning_content=f"word {number} ") for number in range(300)]

    async def scenario(run, front):
        pass

    run = over_http(scenario, Steps([*words, delta(content=ANSWER)]), runs_dir=str(tmp_path))
    text = next(tmp_path.glob("*.jsonl")).read_text()
    assert text.count("word 299") == 1
    assert len(text.splitlines()) == len(run.record.events) + 1  # the header
    reopened = dn.open_run(next(tmp_path.glob("*.jsonl")))
    key = str(next(iter(run.record.attempts)))
    assert ViewModel(reopened.record).detail(key) == ViewModel(run.record).detail(key)
    assert kinds(ViewModel(reopened.record).detail(key)) == ["sent", "sent", "reasoning", "reply", "record"]
    assert not RunRecord(run.record.events).streams.pending
    assert "word 299" in reopened._repr_html_()
