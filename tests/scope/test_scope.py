"""What a hint reaches, and what it does not."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, HintError, ScopeError
from dspynb.scope import setting
from tests.helpers import Caption, chat, echo_hint


async def hint_of(predict):
    return (await predict(subject="x")).sentence


def test_a_hint_reaches_predictors_called_inside_the_block_and_none_outside():
    predict = dn.Predict(Caption, lm=echo_hint())

    async def main():
        with dn.hints("be brief"):
            inside = await hint_of(predict)
        return inside, await hint_of(predict)

    assert asyncio.run(main()) == ("be brief", "none")


def test_hints_are_addressed_to_a_predictor_not_to_its_signature():
    first, second = dn.Predict(Caption, lm=echo_hint()), dn.Predict(Caption, lm=echo_hint())

    async def main():
        with dn.hints({first: "for the first"}):
            return await hint_of(first), await hint_of(second)

    assert asyncio.run(main()) == ("for the first", "none")


def test_nested_hints_compose_outermost_first():
    predict = dn.Predict(Caption, lm=echo_hint())

    async def main():
        with dn.hints("outer"), dn.hints({predict: "inner"}):
            assert dn.current_hint(predict) == "outer\ninner"
            assert dn.current_hint() == "outer"
            return await hint_of(predict)

    assert asyncio.run(main()) == "outer\ninner"


def test_a_hint_can_be_addressed_by_dotted_path():
    class Program(dn.Module):
        def __init__(self):
            self.steps = [dn.Predict(Caption, lm=echo_hint()), dn.Predict(Caption, lm=echo_hint())]

        async def forward(self, subject):
            return {"a": await hint_of(self.steps[0]), "b": await hint_of(self.steps[1])}

    program = Program()

    async def main():
        with dn.hints({"steps[1]": "second only"}, of=program):
            return await program(subject="x")

    assert asyncio.run(main()).to_dict() == {"a": "none", "b": "second only"}


def test_a_plain_thread_does_not_inherit_and_carry_restores_it():
    predict = dn.Predict(Caption, lm=echo_hint())
    hints_by_way = {}

    def work(name):
        hints_by_way[name] = dn.current_hint(predict)

    with dn.hints("h"):
        threads = [
            threading.Thread(target=work, args=("plain",)),
            threading.Thread(target=dn.carry(work), args=("carried",)),
        ]
        for thread in threads:
            thread.start()
            thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(work, "submit").result()
            pool.submit(dn.carry(work), "submit carried").result()
    assert hints_by_way == {"plain": None, "carried": "h", "submit": None, "submit carried": "h"}


def test_settings_of_a_context_block_end_with_it_and_configure_stays():
    dn.configure(concurrency=5)
    with dn.context(concurrency=7):
        assert setting("concurrency") == 7
    assert setting("concurrency") == 5


def test_configure_applies_in_other_threads():
    dn.configure(concurrency=9)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(setting, "concurrency").result() == 9


def test_a_copy_of_a_predictor_is_addressed_anew_and_a_pickle_keeps_its_address():
    predict = dn.Predict("question -> answer")
    assert copy.copy(predict).uid != predict.uid
    assert copy.deepcopy([predict])[0].uid != predict.uid
    assert pickle.loads(pickle.dumps(predict)).uid == predict.uid


def test_a_task_that_outlives_the_block_reads_no_hint_and_warns_once():
    predict = dn.Predict(Caption, lm=echo_hint())

    async def main():
        async def later():
            await asyncio.sleep(0.01)
            return await hint_of(predict), await hint_of(predict)

        with dn.hints("gone"):
            orphan = asyncio.create_task(later())
        with pytest.warns(dn.ScopeClosedWarning, match=r"hints\(\.\.\.\) block.*test_scope") as warned:
            result = await orphan
        assert len(warned) == 1
        return result

    assert asyncio.run(main()) == ("none", "none")


def test_an_orphan_keeps_its_model():
    lm = echo_hint()
    predict = dn.Predict(Caption)

    async def main():
        async def later():
            await asyncio.sleep(0.01)
            return await hint_of(predict)

        with dn.context(lm=lm):
            orphan = asyncio.create_task(later())
        return await orphan

    assert asyncio.run(main()) == "none"


def test_a_hint_is_never_stored_in_the_predictor():
    predict = dn.Predict(Caption, lm=dn.FunctionLM(lambda r: chat(sentence="x")))
    before = (pickle.dumps(vars(predict)["instruction"]), predict.signature.fingerprint(), repr(predict))

    async def main():
        with dn.hints("SECRET-HINT"):
            await predict(subject="x")
            assert "SECRET-HINT" not in repr(vars(predict))

    asyncio.run(main())
    assert (pickle.dumps(predict.instruction), predict.signature.fingerprint(), repr(predict)) == before


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: dn.hints(5), HintError, "text, or a mapping"),
        (lambda: dn.hints({"answer": "x"}), HintError, "of=program"),
        (lambda: dn.hints({"slef": "x"}, of=dn.Predict("a -> b")), HintError, "Did you mean 'self'"),
        (lambda: dn.hints({3: "x"}), HintError, "not to int"),
        (lambda: dn.hints({dn.Predict("a -> b"): 3}), HintError, "must be text"),
        (lambda: dn.current_hint("self"), HintError, "takes a predictor"),
        (lambda: dn.carry(5), ScopeError, "takes a function"),
        (lambda: dn.configure(ml="x"), ConfigurationError, "Did you mean 'lm'"),
        (lambda: dn.context(concurrency=0), ConfigurationError, "at least 1"),
        (lambda: dn.configure(view="wdget"), ConfigurationError, "Did you mean 'widget'"),
        (lambda: dn.configure(lm=3), ConfigurationError, "provider/model"),
        (lambda: dn.configure(lm="nonsense"), ConfigurationError, "named 'provider/model'"),
    ],
)
def test_a_mistake_raises_where_it_is_made(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_configure_changes_nothing_when_one_setting_is_wrong():
    with pytest.raises(ConfigurationError):
        dn.configure(concurrency=3, view="nope")
    assert setting("concurrency") == 32


@pytest.mark.parametrize("nested", [True, False])
def test_one_block_object_may_be_entered_many_times(nested):
    predict = dn.Predict(Caption, lm=echo_hint())
    block = dn.hints("h")

    async def task(before, inside):
        await asyncio.sleep(before)
        with block:
            await asyncio.sleep(inside)
            seen_inside = await hint_of(predict)
        return seen_inside, await hint_of(predict)

    async def main():
        if nested:
            with block, block:
                assert dn.current_hint() == "h\nh"
            return [("h", "none" if dn.current_hint() is None else "leak")]
        return await asyncio.gather(task(0, 0.02), task(0.005, 0.04))

    assert set(asyncio.run(main())) == {("h", "none")}


def test_one_context_object_shared_by_tasks_ends_for_each_with_its_block():
    block = dn.context(concurrency=7)

    async def task(before, inside):
        await asyncio.sleep(before)
        with block:
            await asyncio.sleep(inside)
        return setting("concurrency")

    async def main():
        return await asyncio.gather(task(0, 0.02), task(0.005, 0.04))

    assert asyncio.run(main()) == [32, 32]
