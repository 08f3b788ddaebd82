"""Replay: the program again, on recorded replies, up to the first difference."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dspynb as dn
from dspynb.errors import InputError, JournalError, ParseError, RateLimited, ReplayDiverged, ScopeError
from dspynb.events import from_json, to_json
from dspynb.replaying.recording import changed_settings
from tests.helpers import Caption, chat, echo_hint, field, scores

HOSTILE = "<script>alert(1)</script>"


def refuse(request):
    raise AssertionError("a replay calls no model")


NO_MODEL = dn.FunctionLM(refuse)


class Four(dn.Module):
    """Four predictors in attributes, a list, a dict and a module inside."""

    def __init__(self, lm=None, instruction=None):
        self.draft = dn.Predict(Caption, lm=lm)
        self.steps = [dn.Predict(Caption, lm=lm)]
        self.by = {"x": dn.Predict(Caption, lm=lm, instruction=instruction)}
        self.inner = Inner(lm)

    async def forward(self, subject):
        draft = (await self.draft(subject=subject)).sentence
        both = await asyncio.gather(self.steps[0](subject=draft), self.by["x"](subject=draft))
        return await self.inner(subject=" ".join(p.sentence for p in both))


class Inner(dn.Module):
    def __init__(self, lm=None):
        self.predict = dn.Predict(Caption, lm=lm)

    async def forward(self, subject):
        return await self.predict(subject=subject)


class FanOut(dn.Module):
    """One predictor, called for all parts concurrently."""

    def __init__(self, lm=None, instruction=None):
        self.predict = dn.Predict(Caption, lm=lm, instruction=instruction)

    async def forward(self, subject):
        parts = await asyncio.gather(*(self.predict(subject=part) for part in subject.split()))
        return {"sentence": " ".join(p.sentence for p in parts)}


def counting():
    """A model whose replies are all different and come out of order."""
    numbers, rng = itertools.count(1), random.Random(0)

    async def answer(request):
        number = next(numbers)
        for _ in range(rng.randrange(5)):
            await asyncio.sleep(0)
        return chat(sentence=f"{field(request, 'subject')}{number}")

    return dn.FunctionLM(answer)


def record(program, **inputs):
    """The trace and the prediction of one call."""

    async def main():
        with dn.trace() as t:
            prediction = await program(**inputs)
        return t, prediction

    return asyncio.run(main())


def replay(*args, **kwargs):
    return asyncio.run(dn.replay(*args, **kwargs))


def hint_again(attempts, program, inputs):
    return "again"


def paths(spans):
    return {s.path for s in spans if s.kind == "call"}


# ── the same program ──────────────────────────────────────────────────────────────────────────────────────────────
def test_a_program_runs_on_recorded_replies_and_no_model_is_called():
    t, prediction = record(Four(counting()), subject="sea")
    replayed = replay(t, Four(NO_MODEL))
    assert replayed.prediction == prediction
    assert replayed.complete
    assert replayed.exact
    assert (replayed.divergences, replayed.unused, replayed.error) == ((), (), None)
    assert sorted(c.reply for c in replayed.calls) == sorted(c.reply for c in t.calls)
    assert all(c.cached and c.usage.calls == 0 for c in replayed.calls)


def test_discovery_trace_replay_and_refine_agree_on_the_paths():
    refine = dn.Refine(Four(echo_hint()), scores(0.1, 1.0), n=2, hints=lambda a, p, i: dict.fromkeys(named, "again"))
    named = [path for path, _ in refine.named_predictors() if path != "advisor"]
    t, _ = record(refine, subject="sea")
    other = dn.Refine(Four(NO_MODEL), scores(0.1, 1.0), n=2, hints=lambda a, p, i: dict.fromkeys(named, "again"))
    replayed = replay(t, other)
    assert set(named) == {"draft", "steps[0]", "by['x']", "inner.predict"} == paths(t.spans)
    assert {c.predictor for c in replayed.calls} == paths(t.spans)
    assert [c.hint for c in replayed.calls] == [None] * 4 + ["again"] * 4
    assert replayed.exact


@pytest.mark.parametrize("kind", ["trace", "trace file", "run", "run file", "run id"])
def test_a_trace_a_run_and_the_files_of_both_are_replayed(tmp_path, kind):
    refine = dn.Refine(Four(counting()), scores(0.1, 0.2), n=2, hints=hint_again)
    t, prediction = record(refine, subject="sea")
    t.save(tmp_path / "t.jsonl")
    recorded = {
        "trace": t,
        "trace file": tmp_path / "t.jsonl",
        "run": prediction.run,
        "run file": prediction.run.path,
        "run id": prediction.run.id,
    }[kind]
    replayed = replay(recorded, dn.Refine(Four(NO_MODEL), scores(0.1, 0.2), n=2, hints=hint_again))
    assert replayed.exact
    assert replayed.prediction == prediction
    assert list(replayed.prediction.run.attempts.score) == [0.1, 0.2]


def test_a_bare_predictor_is_replayed():
    t, prediction = record(dn.Predict(Caption, lm=dn.ScriptedLM([chat(sentence="blue")])), subject="sea")
    assert replay(t, dn.Predict(Caption)).prediction == prediction


def test_concurrent_calls_each_get_their_own_reply_in_whatever_order_they_ended():
    t, prediction = record(FanOut(counting()), subject="a b c d e f a a")
    assert [c.inputs["subject"] for c in t.calls] != ["a", "b", "c", "d", "e", "f", "a", "a"]
    assert replay(t, FanOut(NO_MODEL)).prediction.sentence.split()[1:6] == prediction.sentence.split()[1:6]
    assert replay(t, FanOut(NO_MODEL)).exact


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12, unique=True), seed=st.integers(0, 99))
def test_any_fan_out_replays_to_the_same_prediction(words, seed):
    dn.configure(runs_dir=None)
    t, prediction = record(FanOut(counting()), subject=" ".join(words))
    shuffled = dn.Trace(random.Random(seed).sample(t.events, len(t.events)))
    assert replay(dn.Trace(t.events), FanOut(NO_MODEL)).prediction == prediction
    assert replay(shuffled, FanOut(NO_MODEL), strict=False).prediction == prediction


def test_samples_of_one_prompt_keep_the_order_of_their_attempts():
    sentences = [f"s{i}" for i in range(4)]
    lm = dn.ScriptedLM([chat(sentence=s) for s in sentences])
    search = dn.BestOfN(dn.Predict(Caption, lm=lm), scores(1, 3, 2, 0), n=4, threshold=None)
    t, _ = record(search, subject="sea")
    replayed = replay(t, dn.BestOfN(dn.Predict(Caption), scores(1, 3, 2, 0), n=4, threshold=None))
    assert list(replayed.prediction.run.attempts.sentence) == sentences
    assert replayed.prediction.sentence == "s1"


def test_equal_prompts_of_concurrent_attempts_are_distinguished_by_their_rollouts():
    class Late(Inner):
        """Attempts call in the order of ``order``, whatever their numbers."""

        order = ()

        async def forward(self, subject):
            for _ in range(self.order.index(dn.current_attempt().number)):
                await asyncio.sleep(0)
            return await self.predict(subject=subject)

    def search(order, lm=None):
        program = Late(lm)
        program.order = order
        return dn.BestOfN(program, lambda row, prediction: 0.5, n=3, width=3, threshold=None)

    model = dn.FunctionLM(lambda request: chat(sentence=f"rollout {request.rollout}"))
    t, _ = record(search((3, 1, 2), model), subject="sea")
    assert [c.rollout for c in t.calls] == [2, 0, 1]
    replayed = replay(t, search((1, 2, 3)))
    assert list(replayed.prediction.run.attempts.sentence) == ["rollout 0", "rollout 1", "rollout 2"]


@pytest.mark.parametrize("winner", [1, 2, 3])
def test_attempts_that_were_cancelled_in_a_wave_are_cancelled_again(winner):
    """Attempt ``winner`` passes; later attempts never had a reply, so none is recorded."""

    async def answer(request):
        if request.rollout + 1 > winner:
            await asyncio.Event().wait()
        return chat(sentence=str(request.rollout + 1))

    def search(lm):
        reward = lambda row, prediction: float(prediction.sentence == str(winner))  # noqa: E731
        return dn.BestOfN(dn.Predict(Caption, lm=lm), reward, n=4, width=4)

    t, prediction = record(search(dn.FunctionLM(answer)), subject="sea")
    replayed = replay(t, search(NO_MODEL))
    assert replayed.prediction == prediction
    assert replayed.exact
    assert list(replayed.prediction.run.attempts.error.fillna("")) == [""] * winner + ["cancelled"] * (4 - winner)


def test_a_cancelled_attempt_that_is_no_longer_cancelled_is_a_divergence_and_does_not_hang():
    async def answer(request):
        if request.rollout:
            await asyncio.Event().wait()
        return chat(sentence="s")

    t, _ = record(dn.BestOfN(dn.Predict(Caption, lm=dn.FunctionLM(answer)), scores(1.0), n=3, width=3), subject="sea")
    search = dn.BestOfN(dn.Predict(Caption), lambda row, prediction: 0.0, n=3, width=3)

    async def main():
        async with asyncio.timeout(10):
            await dn.replay(t, search)

    with pytest.raises(dn.ReplayDiverged, match="no further call of this predictor with rollout 1"):
        asyncio.run(main())


def test_recorded_errors_are_raised_with_their_class_and_text():
    for error in (RateLimited("too many", model="a/b", status=429), ValueError("odd"), ZeroDivisionError("by zero")):
        predict = dn.Predict(Caption, lm=dn.ScriptedLM([error]))

        async def main(predict=predict, error=error):
            with dn.trace() as t, pytest.raises(type(error)):
                await predict(subject="sea")
            return t

        t = asyncio.run(main())
        with pytest.raises(type(error)) as caught:
            replay(t, dn.Predict(Caption))
        assert str(caught.value) == str(error)
        replayed = replay(t, dn.Predict(Caption), strict=False)
        assert (type(replayed.error), replayed.prediction, replayed.complete) == (type(error), None, True)


def test_an_unknown_error_class_becomes_a_model_error():
    class Odd(Exception):
        pass

    async def main():
        with dn.trace() as t, pytest.raises(Odd):
            await dn.Predict(Caption, lm=dn.ScriptedLM([Odd("text")]))(subject="sea")
        return t

    with pytest.raises(dn.errors.ModelError, match="Odd: text"):
        replay(asyncio.run(main()), dn.Predict(Caption))


def test_a_reply_that_could_not_be_parsed_and_its_repair_are_replayed():
    async def main(*replies):
        with dn.trace() as t, contextlib.suppress(ParseError):
            await dn.Predict(Caption, lm=dn.ScriptedLM(replies))(subject="sea")
        return t

    repaired = asyncio.run(main("mumble", chat(sentence="blue")))
    assert [span.depth for span in repaired.spans] == [0, 1]
    assert replay(repaired, dn.Predict(Caption)).prediction.sentence == "blue"
    with pytest.raises(ParseError) as caught:
        replay(asyncio.run(main("mumble", "grumble")), dn.Predict(Caption))
    assert caught.value.raw == "grumble"


# ── a program that changed ────────────────────────────────────────────────────────────────────────────────────────
def test_a_strict_replay_ends_at_the_first_prompt_that_differs_and_shows_the_difference():
    t, _ = record(Four(counting()), subject="sea")
    with pytest.raises(dn.ReplayDiverged) as caught:
        replay(t, Four(NO_MODEL, instruction="Shout it."))
    divergence = caught.value.divergence
    assert (divergence.path, divergence.message, divergence.rollout) == ("by['x']", 1, 0)
    assert "[-Write one sentence about the subject-]{+Shout it+}." in str(caught.value)
    assert divergence.diff.changed
    assert "<ins" in divergence._repr_html_()
    assert isinstance(caught.value, dn.DspynbError)


def test_a_divergence_has_the_number_of_the_message_that_differs():
    t, _ = record(dn.Predict(Caption, lm=dn.ScriptedLM([chat(sentence="s")])), subject="sea")
    with pytest.raises(dn.ReplayDiverged, match="self: message 2 of the prompt is not the recorded one"):
        replay(t, dn.Predict(Caption), inputs={"subject": "lake"})
    demos = [{"subject": "a", "sentence": "b"}]
    with pytest.raises(dn.ReplayDiverged, match="message 2 "):
        replay(t, dn.Predict(Caption, demos=demos))


def test_a_replay_that_is_not_strict_continues_and_lists_every_difference():
    t, prediction = record(Four(counting()), subject="sea")
    replayed = replay(t, Four(NO_MODEL, instruction="Shout it."), strict=False)
    assert replayed.prediction == prediction
    assert [d.path for d in replayed.divergences] == ["by['x']"]
    assert replayed.complete
    assert not replayed.exact
    assert "1 divergences" in repr(replayed)
    assert "{+Shout it+}" in repr(replayed)


def test_concurrent_calls_with_changed_prompts_each_get_the_reply_for_their_inputs():
    t, prediction = record(FanOut(counting()), subject="a b c d e f")
    backwards = replay(t, FanOut(instruction="New."), inputs={"subject": "f e d c b a"}, strict=False)
    assert backwards.prediction.sentence.split() == prediction.sentence.split()[::-1]
    assert len(backwards.divergences) == 6


def test_an_additional_call_ends_the_replay_in_either_mode():
    t, _ = record(FanOut(counting()), subject="a b")
    with pytest.raises(dn.ReplayDiverged, match="no further call") as caught:
        replay(t, FanOut(), inputs={"subject": "a b c"})
    assert caught.value.divergence.recorded is None
    assert caught.value.divergence.message is None
    replayed = replay(t, FanOut(), inputs={"subject": "a b c"}, strict=False)
    assert (replayed.prediction, replayed.complete) == (None, False)
    assert [d.recorded for d in replayed.divergences] == [None]
    assert "ended where nothing was recorded" in repr(replayed)


def test_a_missing_call_leaves_an_unused_reply():
    t, _ = record(FanOut(counting()), subject="a b c")
    replayed = replay(t, FanOut(), inputs={"subject": "a c"})
    assert [c.inputs["subject"] for c in replayed.unused] == ["b"]
    assert replayed.complete
    assert not replayed.exact


def test_a_predictor_that_was_never_recorded_is_named():
    t, _ = record(Inner(counting()), subject="sea")
    with pytest.raises(dn.ReplayDiverged, match="draft: the recording holds no call of this predictor"):
        replay(t, Four())


def test_an_advisors_call_is_in_a_run_and_not_in_a_trace():
    def search(lm=None, advice=None):
        return dn.Refine(dn.Predict(Caption, lm=lm), scores(0.1, 1.0), n=2, hints="advisor", advisor_lm=advice)

    advice = dn.ScriptedLM(['[[ ## advice ## ]]\n{"self": "shine"}\n[[ ## completed ## ]]'])
    t, prediction = record(search(echo_hint(), advice), subject="sea")
    assert replay(prediction.run, search()).exact
    with pytest.raises(dn.ReplayDiverged, match="advisors are in a run's record"):
        replay(t, search())


def test_a_program_that_catches_every_error_is_ended():
    t, _ = record(Inner(counting()), subject="sea")

    class Stubborn(Inner):
        async def forward(self, subject):
            while True:
                try:
                    return await self.predict(subject="lake")
                except Exception:
                    await asyncio.sleep(0)

    async def main():
        async with asyncio.timeout(10):
            await dn.replay(t, Stubborn())

    with pytest.raises(dn.ReplayDiverged):
        asyncio.run(main())


def test_a_divergence_in_an_attempt_is_no_failed_attempt():
    t, _ = record(dn.Refine(Inner(counting()), scores(0.1, 0.2), n=2, hints=lambda a, p, i: "old"), subject="sea")
    with pytest.raises(dn.ReplayDiverged, match=r"\[-old-\]\{\+new\+\}"):
        replay(t, dn.Refine(Inner(), scores(0.1, 0.2), n=2, hints=lambda a, p, i: "new"))


def test_hostile_prompts_and_replies_stay_text():
    t, _ = record(Inner(dn.ScriptedLM([chat(sentence=HOSTILE)])), subject="sea")
    replayed = replay(t, Inner(), inputs={"subject": HOSTILE}, strict=False)
    assert "<script" not in replayed._repr_html_()
    assert "&lt;script&gt;" in replayed._repr_html_()


# ── no models, no side effects ────────────────────────────────────────────────────────────────────────────────────
def test_a_model_that_is_called_directly_is_refused():
    class Direct(Inner):
        async def forward(self, subject):
            await dn.LM("openai/m", api_base="http://127.0.0.1:9/v1").complete(dn.LMRequest(()))

    t, _ = record(Inner(counting()), subject="sea")
    with pytest.raises(ScopeError, match=r"Call the model through dn\.Predict"):
        replay(t, Direct())
    with pytest.raises(ScopeError, match="stays in its process"):
        replay(t, Snapping())


class Snapping(Inner):
    async def forward(self, subject):
        dn.snapshot()


def test_the_preferred_adapter_of_a_model_is_used_but_not_the_model():
    class Json:
        adapter = "json"
        calls = 0

        async def complete(self, request):
            self.calls += 1
            return dn.LMReply('{"sentence": "blue"}')

    lm = Json()
    t, prediction = record(dn.Predict(Caption, lm=lm), subject="sea")
    assert replay(t, dn.Predict(Caption, lm=lm)).prediction == prediction
    assert lm.calls == 1
    with dn.context(adapter="json"):
        assert replay(t, dn.Predict(Caption)).exact


def test_a_replay_writes_nothing_to_the_runs_folder_and_nothing_to_the_program(tmp_path):
    refine = dn.Refine(Four(counting()), scores(0.1, 0.2), n=2, hints=hint_again)
    t, _ = record(refine, subject="sea")
    fresh = dn.Refine(Four(), scores(0.1, 0.2), n=2, hints=hint_again)
    attributes = {p: dict(vars(p)) for _, p in fresh.named_predictors()}
    files = len(dn.runs())
    assert replay(t, fresh).exact
    assert {p: dict(vars(p)) for _, p in fresh.named_predictors()} == attributes
    assert len(dn.runs()) == files


@pytest.mark.parametrize("limits", [{"calls": 1}, {"tokens": 600}])
def test_a_replay_spends_nothing_of_a_budget_even_if_it_calls_several_predictors_concurrently(limits):
    program = dn.BestOfN(Four(), reward=lambda row, p: 0.5, n=2, threshold=None)
    reply = dn.LMReply(chat(sentence="s"), usage=dn.Usage(calls=1, prompt_tokens=600))
    with dn.trace() as t, dn.context(lm=dn.ScriptedLM([reply] * 8)):
        asyncio.run(program(subject="the sea"))
    with dn.Budget(**limits) as meter, dn.context(lm=dn.ScriptedLM([reply])):
        if "tokens" in limits:
            asyncio.run(dn.Predict(Caption)(subject="x"))  # spends them all
        left = meter.left
        assert asyncio.run(dn.replay(t, program)).exact
    assert meter.left == left


def test_cancellation_from_outside_is_raised_unchanged():
    class Sleepy(Inner):
        async def forward(self, subject):
            await asyncio.Event().wait()

    t, _ = record(Inner(counting()), subject="sea")

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await dn.replay(t, Sleepy())

    asyncio.run(main())


def test_replays_run_concurrently():
    t, prediction = record(FanOut(counting()), subject="a b c")

    async def main():
        return await asyncio.gather(*(dn.replay(t, FanOut()) for _ in range(3)))

    assert [r.prediction for r in asyncio.run(main())] == [prediction] * 3


# ── choosing the call ─────────────────────────────────────────────────────────────────────────────────────────────
def test_span_chooses_one_of_several_recorded_calls():
    predict = dn.Predict(Caption, lm=counting())

    async def main():
        with dn.trace() as t:
            rows = await predict.batch([{"subject": s} for s in "abc"])
        return t, rows

    t, rows = asyncio.run(main())
    with pytest.raises(InputError, match="holds 3 program calls; choose one with span="):
        replay(t, dn.Predict(Caption))
    spans = [s for s in t.spans if s.kind == "call"]
    for span in spans:
        assert replay(t, dn.Predict(Caption), span=span.span).prediction in rows
    with pytest.raises(InputError, match="span 0 is not a recorded program call"):
        replay(t, dn.Predict(Caption), span=0)


def test_a_call_inside_an_attempt_is_not_replayed_alone():
    t, _ = record(dn.Refine(Inner(counting()), scores(0.1, 1.0), n=2, hints=hint_again), subject="sea")
    inside = next(s for s in t.spans if s.kind == "module")
    with pytest.raises(InputError, match="inside attempt 1 of a search"):
        replay(t, Inner(), span=inside.span)


def test_the_run_of_a_prediction_is_that_of_the_whole_program_even_if_a_search_inside_made_it():
    class Outer(dn.Module):
        def __init__(self, lm=None):
            self.first = dn.Predict(Caption, lm=lm)
            self.refine = dn.Refine(dn.Predict(Caption, lm=lm), scores(0.1, 1.0), n=2, hints=hint_again)

        async def forward(self, subject):
            return await self.refine(subject=(await self.first(subject=subject)).sentence)

    t, prediction = record(Outer(counting()), subject="sea")
    for recorded in (t, prediction.run, prediction.run.path):
        assert replay(recorded, Outer()).prediction == prediction


@pytest.mark.parametrize(
    ("recorded", "program", "error", "says"),
    [
        (dn.Trace(), dn.Predict(Caption), InputError, "holds no program call"),
        (42, dn.Predict(Caption), InputError, "give a Trace, a Run, or the path"),
        ("nowhere.jsonl", dn.Predict(Caption), JournalError, "no such file"),
        (dn.Trace(), "program", InputError, r"a dn\.Module .*, got str"),
    ],
)
def test_objects_that_cannot_be_replayed_are_refused(recorded, program, error, says):
    with pytest.raises(error, match=says):
        replay(recorded, program)


def test_a_stopped_call_has_no_recorded_reply():
    async def main():
        gate = asyncio.Event()

        async def wait(request):
            if field(request, "subject") == "two":
                gate.set()
                await asyncio.Event().wait()
            return chat(sentence="two")

        class Two(dn.Module):
            def __init__(self):
                self.predict = dn.Predict(Caption, lm=dn.FunctionLM(wait))

            async def forward(self, subject):
                return await self.predict(subject=(await self.predict(subject=subject)).sentence)

        program = Two()
        run = program.start(subject="one")
        await gate.wait()
        run.stop()
        with pytest.raises(dn.RunStopped):
            await run
        return await dn.replay(run, program, strict=False)

    replayed = asyncio.run(main())
    assert not replayed.complete
    assert len(replayed.calls) == 2
    assert [c.error is None for c in replayed.calls] == [True, False]


def test_native_tool_calls_are_replayed():
    def add(a: int, b: int) -> int:
        return a + b

    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
    replies = [dn.LMReply("", (call,)), dn.LMReply("done"), chat(answer="5")]
    agent = dn.ReAct("question -> answer", [add], native=True)

    async def main():
        with dn.trace() as t, dn.context(lm=dn.ScriptedLM(replies)):
            await agent(question="2 + 3")
        return t

    replayed = replay(asyncio.run(main()), dn.ReAct("question -> answer", [add]))
    assert replayed.exact
    assert replayed.prediction.trajectory[0]["observation"] == "5"


PIXEL = b"\x89PNG\r\n\x1a\n" + b"a pixel" * 9


def test_a_prompt_with_an_image_equals_the_recorded_one(tmp_path):
    class Look(dn.Signature):
        """Look."""

        image: dn.Image = dn.Input()
        answer: str = dn.Output()

    async def main():
        with dn.trace() as recorded:
            await dn.Predict(Look, lm=dn.FunctionLM(lambda r: chat(answer="red")))(image=dn.Image(PIXEL))
        recorded.save(tmp_path / "t.jsonl")
        program = dn.Predict(Look, lm=NO_MODEL)
        assert (await dn.replay(recorded, program)).exact
        inputs = {"image": dn.Image(PIXEL)}  # a file does not hold the data of images
        assert (await dn.replay(tmp_path / "t.jsonl", program, inputs=inputs)).exact
        with pytest.raises(dn.errors.ReplayDiverged):
            await dn.replay(recorded, program, inputs={"image": dn.Image(PIXEL + b"!")})

    asyncio.run(main())


def test_a_prompt_with_a_secret_equals_the_recorded_one(monkeypatch):
    dn.redact.keep_secret("planted-0123456789")

    async def main():
        with dn.trace() as recorded:
            await dn.Predict(Caption, lm=counting_lm())(subject="planted-0123456789")
        assert "planted" not in str(recorded.calls[0].messages)
        replayed = await dn.replay(recorded, dn.Predict(Caption, lm=NO_MODEL), inputs={"subject": "planted-0123456789"})
        assert replayed.exact

    def counting_lm():
        return dn.FunctionLM(lambda request: chat(sentence="blue"))

    asyncio.run(main())


# ── settings, tools and response formats ──────────────────────────────────────────────────────────────────────────────
class Constrained:
    """A model that is held to a schema."""

    name, constrains = "constrained", True

    def __init__(self, temperature=0.5):
        self.settings = {"temperature": temperature}

    async def complete(self, request):
        return dn.LMReply('{"answer": "4"}' if request.response_format else chat(answer="4"))


def recorded_with(program, **settings):
    with dn.trace() as recorded, dn.context(lm=Constrained(), **settings):
        program.run_sync(question="2+2?")
    return recorded


def differences(recorded, program, **settings):
    with dn.context(**settings):
        again = asyncio.run(dn.replay(recorded, program, strict=False))
    return [divergence.settings for divergence in again.divergences]


def test_a_changed_setting_is_a_divergence_that_names_both_values():
    recorded = recorded_with(dn.Predict("question -> answer", temperature=0.2, max_tokens=9))
    changed = dn.Predict("question -> answer", temperature=0.7, top_p=0.9)
    with pytest.raises(ReplayDiverged, match=r"self: temperature was 0\.2 and is 0\.7; top_p was not set and is 0\.9"):
        asyncio.run(dn.replay(recorded, changed))
    assert differences(recorded, changed, lm=Constrained()) == [
        {"temperature": (0.2, 0.7), "max_tokens": (9, None), "top_p": (None, 0.9)}
    ]


def test_a_changed_setting_of_the_model_is_a_divergence_where_the_model_is_known():
    program = dn.Predict("question -> answer")
    recorded = recorded_with(program)
    assert differences(recorded, program, lm=Constrained(0.0)) == [{"temperature": (0.5, 0.0)}]
    assert differences(recorded, program, lm=Constrained()) == []
    assert differences(recorded, program) == []  # no model: its settings are not known


def test_a_changed_schema_is_a_divergence_with_the_same_prompt():
    recorded = recorded_with(dn.Predict("question -> answer", adapter="json"))
    unconstrained = Constrained()
    unconstrained.constrains = False
    (difference,) = differences(recorded, dn.Predict("question -> answer", adapter="json"), lm=unconstrained)
    assert list(difference) == ["response_format"]
    assert difference["response_format"][1] is None


def test_a_call_of_an_earlier_version_has_no_settings_to_compare():
    program = dn.Predict("question -> answer", temperature=0.2)
    recorded = recorded_with(program)
    body = to_json(recorded.calls[0])
    old = from_json({name: value for name, value in body.items() if name not in ("requested", "sent")})
    assert changed_settings(old, dn.LMRequest((), {"temperature": 0.7}), {}) == {}
