"""A key planted in the environment, the model, a header and the server's answers is found in nothing that is written
or shown."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import traceback

import pytest

import dspynb as dn
from dspynb.errors import ModelError
from dspynb.redact import redact, redact_known
from dspynb.running.journal import flush_journals
from dspynb.views import static_html
from tests.helpers import Caption, chat
from tests.lm.server import Server, error, sse

ENVIRONMENT, GIVEN, HEADER = "env-0123456789-abc", 'giv"en\\0123456789é', "head-0123456789-xyz"
PLANTED = (ENVIRONMENT, GIVEN, HEADER)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A server that repeats all it was sent, asked by a model with keys, in a folder of its own."""
    monkeypatch.setenv("PLANTED_API_KEY", ENVIRONMENT)
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("dspynb.redact._seen", (-9.0, frozenset()))  # it looks at the environment once a second

    def answer(body, number):
        sent = " ".join([ENVIRONMENT, GIVEN, server.headers[-1].get("X-Planted", "")])
        if number == 2:
            return error(400, f"cannot take {sent}")
        return chat(sentence=f"said {number} {sent}", reason=sent)

    with Server(answer) as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key=GIVEN, extra_headers={"X-Planted": HEADER}, retries=0)
        with dn.context(cache=True, runs_dir=str(tmp_path / "runs"), lm=lm):
            yield server, lm, tmp_path


def found_in(text):
    """The planted keys in a text, plain or as JSON writes them."""
    return [key for key in PLANTED if key in text or json.dumps(key)[1:-1] in text]


def test_the_keys_were_sent_where_they_belong(world):
    server, _, _ = world
    dn.Predict(Caption).run_sync(subject="x")
    assert server.headers[0]["X-Planted"] == HEADER
    assert HEADER not in json.dumps(server.bodies)
    assert server.headers[0]["Authorization"].encode("latin-1", "ignore").startswith(b"Bearer giv")


def test_no_artefact_holds_a_planted_key(world, caplog, capsys):
    _, lm, folder = world
    caplog.set_level(logging.DEBUG)
    shown = []

    def reward(row, prediction):
        if "1" in prediction.sentence.split():
            raise ValueError(f"the reward saw {ENVIRONMENT} and {GIVEN}")
        return dn.Score(0.1, feedback=f"not with {prediction.sentence}")

    refine = dn.Refine(dn.Predict(Caption), reward, n=4, hints="feedback")
    recorded = dn.recorded(folder / "replies.jsonl", lm=lm)

    async def main():
        with dn.trace() as trace:
            prediction = await refine(subject=f"a prompt with {ENVIRONMENT}")
        recording = await dn.Predict(Caption, lm=recorded)(subject=f"with {GIVEN}")
        rows = await dn.Predict(Caption).batch([{"subject": f"{i}"} for i in range(3)])
        return trace, prediction, recording, rows

    trace, prediction, recording, rows = asyncio.run(main())
    run = prediction.run
    shown += [repr(prediction), prediction._repr_html_(), repr(recording), repr(rows)]
    shown += [run.attempts.to_string(), run.calls.to_string(), trace.table().to_string(), run.diff(1, 3)._repr_html_()]
    shown += [repr(dn.history(20)), dn.history(20)._repr_html_(), static_html(run.fold()), str(run.attempts.to_dict())]
    shown += [
        repr(lm),
        repr(vars(lm)["_engine"]),
        repr(refine),
        str(pickle.dumps(lm)),
        str(pickle.dumps(dn.Predict(Caption, lm=lm))),
    ]
    flush_journals()
    shown += [dn.open_run(run.path).attempts.to_string(), caplog.text, "".join(capsys.readouterr())]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".jsonl", ".sqlite"}
    shown += [path.read_bytes().decode("utf-8", "replace") for path in files]
    assert [found_in(text) for text in shown] == [[]] * len(shown)
    assert any("***" in text for text in shown)


def test_an_error_holds_no_planted_key_nor_does_its_traceback(world):
    predict = dn.Predict(Caption)
    predict.run_sync(subject="first")
    with pytest.raises(ModelError, match="cannot take") as caught:
        predict.run_sync(subject="second")
    assert found_in("".join(traceback.format_exception(caught.value))) == []


def test_a_key_in_the_shape_of_one_is_taken_from_errors_though_nobody_named_it():
    assert redact("no sk-abcdefghijklmnop1234 and https://me:pass@host") == "no *** and https***host"


def test_short_values_and_plain_words_are_left_alone(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "the")
    monkeypatch.setattr("dspynb.redact._seen", (-9.0, frozenset()))
    assert redact_known("the other") == "the other"


def test_two_models_of_one_name_send_each_its_own_key():
    with Server(lambda body, number: chat(sentence="s")) as server:
        models = [dn.LM("openai/m", api_base=server.base, api_key=f"key-number-{i}-long") for i in range(2)]

        async def main():
            await asyncio.gather(*(dn.Predict(Caption, lm=lm)(subject="x") for lm in models for _ in range(5)))

        asyncio.run(main())
    sent = [headers["Authorization"] for headers in server.headers]
    assert sorted(set(sent)) == ["Bearer key-number-0-long", "Bearer key-number-1-long"]
    assert sent.count("Bearer key-number-0-long") == 5


def test_what_any_model_or_program_says_is_shown_without_a_planted_key(world):
    class Leaks(dn.Module):
        def __init__(self):
            self.predict = dn.Predict("history: History, question -> answer", lm=dn.FunctionLM(lambda r: said))

        async def forward(self, question):
            past = dn.History([{"question": GIVEN, "answer": ENVIRONMENT}])
            await self.predict(history=past, question=question)
            return {"answer": f"the key is {ENVIRONMENT}"}

    said = chat(answer=f"my key is {GIVEN}")
    refine = dn.Refine(Leaks(), lambda row, p: dn.Score(0.0, feedback=f"avoid {ENVIRONMENT}"), n=2)
    with dn.trace() as trace:
        prediction = refine.run_sync(question="q")
    rows = asyncio.run(dn.evaluate(Leaks(), [{"question": "q"}], lambda row, p: dn.Score(1.0, feedback=GIVEN)))
    run = prediction.run
    tables = [run.attempts, run.calls, trace.table(), rows.table]
    shown = [repr(prediction), prediction._repr_html_(), repr(trace), trace._repr_html_(), static_html(run.fold())]
    shown += [*(str(table.to_dict()) for table in tables), repr(prediction.calls), repr(dn.history(9))]
    assert [found_in(text) for text in shown] == [[]] * len(shown)
    assert prediction.answer == f"the key is {ENVIRONMENT}"  # the program's own value is not touched


def test_a_planted_key_that_comes_in_pieces_is_not_streamed(world):
    server, lm, _ = world
    pieces = [
        "[[ ## sentence ## ]]\nit is ",
        ENVIRONMENT[:9],
        ENVIRONMENT[9:],
        f" or {GIVEN[:6]}",
        "\n[[ ## completed ## ]]",
    ]
    server.streamed = [sse(pieces)]

    async def main():
        return [part async for part in dn.Predict(Caption, lm=lm).stream(subject="x")]

    *parts, prediction = asyncio.run(main())
    assert [ENVIRONMENT[:5] in part.text for part in parts] == [False] * len(parts)
    assert "".join(part.delta for part in parts).strip() == prediction.sentence == f"it is *** or {GIVEN[:6]}"
