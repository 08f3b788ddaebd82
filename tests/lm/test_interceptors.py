"""The chain of a model call: the order of its interceptors, and how they work together."""

import asyncio
from dataclasses import replace

import pytest

import dspynb as dn
from dspynb.lm.interceptors.chain import ModelCall, chain
from dspynb.scope import CallContext, Layer, current_scope
from dspynb.scope.call_context import Place
from tests.lm.server import Server


class Noting:
    """An interceptor that records when a call enters and leaves it."""

    def __init__(self, place, notes, name=None):
        self.place, self.notes, self.name = place, notes, name or place.name

    async def __call__(self, call, proceed):
        self.notes.append(self.name)
        reply = await proceed(call)
        self.notes.append(f"{self.name} is left")
        return reply

    def for_snapshot(self):
        return None


class Answering(Noting):
    """An interceptor that replies to every call itself."""

    async def __call__(self, call, proceed):
        self.notes.append(self.name)
        return dn.LMReply("[[ ## answer ## ]]\nrecorded", usage=dn.Usage(calls=1).as_cached(), cached=True)


async def echo(call):
    return dn.LMReply(call.request.messages[0]["content"])


def call_of(text="hi"):
    request = dn.LMRequest(({"role": "user", "content": text},))
    return ModelCall(dn.ScriptedLM([]), request, current_scope())


@pytest.fixture
def cached():
    dn.configure(cache=True)


# ── the chain ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_order_is_replay_resume_log_cache_budget_single_flight():
    assert [place.name for place in Place] == ["REPLAY", "RESUME_LOG", "CACHE", "BUDGET", "SINGLE_FLIGHT"]


def test_links_run_in_the_order_of_their_places():
    notes = []
    links = [Noting(place, notes) for place in (Place.BUDGET, Place.SINGLE_FLIGHT, Place.REPLAY, Place.CACHE)]
    assert asyncio.run(chain(links, echo)(call_of())).text == "hi"
    entered = ["REPLAY", "CACHE", "BUDGET", "SINGLE_FLIGHT"]
    assert notes == entered + [f"{name} is left" for name in reversed(entered)]


def test_a_chain_without_links_is_the_model():
    assert chain([], echo) is echo


def test_a_link_that_answers_ends_the_chain():
    notes = []
    links = [Answering(Place.RESUME_LOG, notes), Noting(Place.BUDGET, notes)]
    assert asyncio.run(chain(links, echo)(call_of())).text == "[[ ## answer ## ]]\nrecorded"
    assert notes == ["RESUME_LOG"]


# ── the chain of a predictor's call ──────────────────────────────────────────────────────────────────────────────────
def around(*links):
    context = CallContext()
    for link in links:
        context = context.with_interceptor(link)
    return Layer(None, context=context)


def test_a_block_puts_an_interceptor_around_every_call_in_it():
    notes = []
    ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4", "answer: 5"]))
    with around(Noting(Place.RESUME_LOG, notes)):
        assert ask.run_sync(question="2+2?").answer == "4"
    assert ask.run_sync(question="2+3?").answer == "5"
    assert notes == ["RESUME_LOG", "RESUME_LOG is left"]


def test_an_interceptor_that_replies_calls_no_model_and_needs_no_budget():
    lm = dn.ScriptedLM(["answer: the model's"])
    ask = dn.Predict("question -> answer", lm=lm)
    with dn.Budget(calls=1) as meter:
        assert ask.run_sync(question="?").answer == "the model's"
        with around(Answering(Place.RESUME_LOG, [])):
            prediction = ask.run_sync(question="?")
    assert (prediction.answer, prediction.calls[0].cached) == ("recorded", True)
    assert (len(lm.requests), meter.spent["calls"]) == (1, 1)


def test_a_repair_goes_through_the_chain_again():
    notes = []
    ask = dn.Predict("question -> answer: int", lm=dn.ScriptedLM(["answer: four", "answer: 4"]))
    with around(Noting(Place.CACHE, notes)):
        assert ask.run_sync(question="2+2?").answer == 4
    assert notes == ["CACHE", "CACHE is left"] * 2


def test_an_exception_of_an_interceptor_is_the_error_of_the_call():
    class Failing(Noting):
        async def __call__(self, call, proceed):
            raise dn.errors.ServerError("the log is gone")

    ask = dn.Predict("question -> answer", lm=dn.ScriptedLM([]))
    with around(Failing(Place.RESUME_LOG, [])), dn.trace() as trace, pytest.raises(dn.errors.ServerError):
        ask.run_sync(question="?")
    assert "the log is gone" in trace.calls[0].error


def test_a_call_that_a_budget_refuses_is_no_failed_call():
    ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
    with dn.trace() as trace, dn.Budget(calls=1):
        ask.run_sync(question="2+2?")
        with pytest.raises(dn.BudgetExhausted):
            ask.run_sync(question="2+3?")
    assert [call.error for call in trace.calls] == [None]


def test_an_answer_of_an_interceptor_is_streamed_at_once():
    async def main():
        ask = dn.Predict("question -> answer", lm=dn.ScriptedLM([]))
        with around(Answering(Place.RESUME_LOG, [])):
            return [part async for part in ask.stream(question="?")]

    *pieces, prediction = asyncio.run(main())
    assert [piece.text for piece in pieces] == ["recorded"]
    assert prediction.answer == "recorded"


# ── the links of LM ──────────────────────────────────────────────────────────────────────────────────────────────────
def model(server, **settings):
    return dn.LM("openai/x", api_base=server.base, api_key="none", retries=0, **settings)


def reply(_, number):
    return f"answer: {number}"


def test_each_call_looks_into_the_cache_once_with_and_without_a_budget(cached, monkeypatch):
    from dspynb.lm.cache import ReplyCache

    keys, get = [], ReplyCache.get

    async def counting(self, key):
        keys.append(key)
        return await get(self, key)

    monkeypatch.setattr(ReplyCache, "get", counting)
    with Server(reply) as server:
        ask = dn.Predict("question -> answer", lm=model(server))
        with dn.Budget(calls=1):
            ask.run_sync(question="new")
        ask.run_sync(question="new")
        ask.run_sync(question="newer")
    assert len(keys) == 3


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cached_reply_is_served_when_the_calls_of_a_budget_are_spent(cached, streamed):
    with Server(reply) as server:
        ask = dn.Predict("question -> answer", lm=model(server))

        async def main():
            with dn.Budget(calls=1) as meter:
                first = await ask(question="?")
                if streamed:
                    parts = [part async for part in ask.stream(question="?")]
                    return first, parts[-1], meter
                return first, await ask(question="?"), meter

        first, second, meter = asyncio.run(main())
    assert first.answer == second.answer
    assert (len(server.bodies), meter.spent["calls"]) == (1, 1)


def test_a_model_called_directly_uses_the_cache_and_single_flight(cached):
    request = dn.LMRequest(({"role": "user", "content": "hi"},))
    with Server(reply) as server:
        lm = model(server)

        async def main():
            joined = await asyncio.gather(lm.complete(request), lm.complete(request))
            return [*joined, await lm.complete(request)]

        replies = asyncio.run(main())
    assert sorted(r.cached for r in replies) == [False, True, True]
    assert len(server.bodies) == 1


class Louder(dn.LM):
    """A subclass that overrides ``complete``."""

    async def complete(self, request):
        reply = await super().complete(request)
        return replace(reply, text=f"{reply.text}!")


def test_an_overridden_complete_is_called():
    with Server(reply) as server:
        lm = Louder("openai/x", api_base=server.base, api_key="none")
        assert dn.Predict("question -> answer", lm=lm).run_sync(question="?").answer == "1!"


def test_a_replaced_complete_is_called(monkeypatch):
    lm = dn.LM("openai/x", api_key="none")

    async def complete(request):
        return dn.LMReply("answer: patched")

    monkeypatch.setattr(lm, "complete", complete)
    assert dn.Predict("question -> answer", lm=lm).run_sync(question="?").answer == "patched"


def test_the_complete_of_a_wrapper_that_delegates_attributes_to_an_lm_is_called():
    class Wrapped:
        def __init__(self, lm):
            self._lm = lm

        def __getattr__(self, name):
            return getattr(self._lm, name)

        async def complete(self, request):
            return dn.LMReply("answer: wrapped")

    lm = Wrapped(dn.LM("openai/x", api_key="none"))
    assert dn.Predict("question -> answer", lm=lm).run_sync(question="?").answer == "wrapped"


def test_a_models_own_cache_is_looked_into_under_a_budget_only():
    class Own:
        def __init__(self):
            self.looked_up, self.completed = 0, 0

        async def cached_reply(self, request):
            self.looked_up += 1
            return dn.LMReply("answer: from before", cached=True)

        async def complete(self, request):
            self.completed += 1
            return dn.LMReply("answer: new")

    lm = Own()
    ask = dn.Predict("question -> answer", lm=lm)
    assert ask.run_sync(question="?").answer == "new"
    with dn.Budget(calls=1) as meter:
        assert [ask.run_sync(question="?").answer for _ in range(3)] == ["from before"] * 3
    assert (lm.looked_up, lm.completed, meter.spent["calls"]) == (3, 1, 0)


def test_the_old_name_of_a_models_own_cache_still_works_with_a_warning():
    async def look_up(self, request):
        return dn.LMReply("answer: from before", cached=True)

    async def complete(self, request):
        return dn.LMReply("answer: new")

    own_model = type("OwnModel", (), {"kept": look_up, "complete": complete})
    kind_of_lm = type("KindOfLM", (dn.LM,), {"kept": look_up})
    for lm in (own_model(), kind_of_lm("openai/x", api_key="none")):
        with dn.Budget(calls=1), pytest.warns(DeprecationWarning, match="kept is now cached_reply"):
            assert dn.Predict("question -> answer", lm=lm).run_sync(question="?").answer == "from before"
