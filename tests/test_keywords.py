"""Keywords that a class or function does not have: one ConfigurationError, DSPy's spellings included."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import sys

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError
from dspynb.keywords import configurable
from dspynb.name_advice import refuse_unknown

METRIC = dn.metrics.exact_match()
PROGRAM = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
ROWS = [{"question": "2+2?", "answer": "4"}]


def reward(row, prediction):
    return 1.0


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda **k: dn.Refine(PROGRAM, reward, **k), "N", "Did you mean 'n'"),
        (lambda **k: dn.Refine(PROGRAM, **k), "reward_fn", "Did you mean 'reward'"),
        (lambda **k: dn.Refine(PROGRAM, reward, **k), "fail_count", "Did you mean 'max_failures'"),
        (lambda **k: dn.Refine(PROGRAM, reward, **k), "tresholds", "Did you mean 'threshold'"),
        (lambda **k: dn.BestOfN(PROGRAM, reward, **k), "N", "Did you mean 'n'"),
        (lambda **k: dn.BestOfN(PROGRAM, reward, **k), "fail_count", "Did you mean 'max_failures'"),
        (lambda **k: dn.ReAct("question -> answer", [reward], **k), "max_iters", "Did you mean 'max_iterations'"),
        (lambda **k: dn.Predict("question -> answer", **k), "instructions", "Did you mean 'instruction'"),
        (lambda **k: dn.ReAct("question -> answer", [reward], **k), "lm", "context"),
        (lambda **k: dn.ProgramOfThought("question -> answer", **k), "max_iters", "Did you mean 'max_iterations'"),
        (lambda **k: dn.MultiChainComparison("question -> answer", **k), "M", "Did you mean 'm'"),
        (dn.Budget, "call", "Did you mean 'calls'"),
        (dn.Budget, "max_tokens", "Did you mean 'tokens'"),
        (dn.Budget, "cost", "Did you mean 'usd'"),
        (dn.LocalLM, "temprature", "Did you mean 'temperature'"),
        (lambda **k: dn.Evaluate(METRIC, **k), "num_threads", "Did you mean 'concurrency'"),
        (lambda **k: dn.Evaluate(METRIC, **k), "devset", r"\(program, rows\)"),
        (lambda **k: dn.Evaluate(METRIC, **k), "display_progress", r"dn.configure\(view=…\)"),
        (lambda **k: dn.Evaluate(METRIC, **k), "provide_traceback", "evaluation.table"),
        (lambda **k: dn.GEPA(METRIC, **k), "reflection_lm", "Did you mean 'prompt_lm'"),
        (lambda **k: dn.GEPA(METRIC, **k), "max_metric_calls", r"dn.Budget\(metric_calls=…\)"),
        (lambda **k: dn.GEPA(METRIC, **k), "reflection_minibatch_size", "Did you mean 'minibatch_size'"),
        (lambda **k: dn.GEPA(METRIC, **k), "track_stats", "recorded"),
        (lambda **k: dn.GEPA(METRIC, **k), "breadth", r"'breadth'\.$"),
        (lambda **k: dn.COPRO(METRIC, **k), "prompt_model", "Did you mean 'prompt_lm'"),
        (lambda **k: dn.COPRO(METRIC, **k), "init_temprature", "Did you mean 'init_temperature'"),
        (lambda **k: dn.MIPROv2(METRIC, **k), "num_threads", "Did you mean 'concurrency'"),
        (lambda **k: dn.MIPROv2(METRIC, **k), "num_trial", "Did you mean 'num_trials'"),
        (lambda **k: dn.MIPROv2(METRIC, **k), "teacher_settings", "Did you mean 'teacher_lm'"),
        (lambda **k: dn.SIMBA(METRIC, **k), "teacher_settings", r"'teacher_settings'\.$"),
        (lambda **k: dn.SIMBA(METRIC, **k), "bsize", "Did you mean 'minibatch_size'"),
        (lambda **k: dn.SIMBA(METRIC, **k), "max_errors", "failure_score="),
        (lambda **k: dn.BootstrapFewShot(METRIC, **k), "teacher_settings", "Did you mean 'teacher_lm'"),
        (lambda **k: dn.BootstrapRandomSearch(METRIC, **k), "num_candidate_programs", "Did you mean 'num_candidates'"),
        (lambda **k: dn.DistillHints(METRIC, **k), "max_hint", "Did you mean 'max_hints'"),
    ],
)
def test_an_unknown_keyword_is_an_error_when_the_object_is_made(make, name, message):
    with pytest.raises(ConfigurationError, match=rf"has no setting (?='{name}').*{message}"):
        make(**{name: 3})


def optimizers():
    return [dn.BootstrapFewShot, dn.BootstrapRandomSearch, dn.COPRO, dn.DistillHints, dn.GEPA, dn.MIPROv2, dn.SIMBA]


@pytest.mark.parametrize("kind", optimizers())
@pytest.mark.parametrize("method", ["compile", "compile_sync", "start", "resume"])
def test_compile_names_its_own_arguments(kind, method):
    def call(**keywords):
        result = getattr(kind(METRIC), method)(**keywords)
        return asyncio.run(result) if inspect.isawaitable(result) else result

    with pytest.raises(ConfigurationError, match=rf"{kind.__name__}.{method} has no setting 'trainset'.*'train'"):
        call(program=PROGRAM, trainset=ROWS)
    with pytest.raises(
        ConfigurationError, match=r"'student'\. Did you mean 'program'\? .*'valset'\. Did you mean 'val'"
    ):
        call(student=PROGRAM, train=ROWS, valset=ROWS)
    with pytest.raises(ConfigurationError, match="to the constructor of the optimizer"):
        call(program=PROGRAM, train=ROWS, num_trials=3)


@pytest.mark.parametrize("call", [dn.evaluate, dn.compare, dn.grid])
def test_functions_refuse_what_evaluate_refuses(call):
    with pytest.raises(ConfigurationError, match=rf"{call.__name__} has no setting 'num_threads'.*'concurrency'"):
        asyncio.run(call(PROGRAM, {}, ROWS, METRIC, num_threads=2))
    with pytest.raises(ConfigurationError, match="'devset'. Did you mean 'rows'"):
        asyncio.run(call(PROGRAM, devset=ROWS, metric=METRIC))


def test_calls_of_an_evaluation_and_batches_refuse_them_too():
    with pytest.raises(ConfigurationError, match="Evaluate has no setting 'devset'. Did you mean 'rows'"):
        asyncio.run(dn.Evaluate(METRIC)(PROGRAM, devset=ROWS))
    with pytest.raises(ConfigurationError, match=r"dn.Evaluate\(metric, concurrency=…\)"):
        dn.Evaluate(METRIC).run_sync(PROGRAM, ROWS, num_threads=2)
    with pytest.raises(ConfigurationError, match="'num_threads'. Did you mean 'concurrency'"):
        asyncio.run(PROGRAM.batch(ROWS, num_threads=2))


@pytest.mark.parametrize("enter", [dn.configure, dn.context])
def test_settings_of_the_process_still_refuse_them(enter):
    with pytest.raises(ConfigurationError, match="Did you mean 'concurrency'"):
        enter(concurency=3)


def test_a_strategy_may_not_hand_on_what_is_its_own():
    class Mine(dn.Optimizer):
        def __init__(self, metric, *, size=1, **common):
            super().__init__(metric, size=size, **common)

        async def search(self, engine): ...

    with pytest.raises(ConfigurationError, match="Mine has no setting 'size'"):
        Mine(METRIC)


def test_a_subclass_is_named_by_its_own_name():
    class MyRefine(dn.Refine):
        pass

    with pytest.raises(ConfigurationError, match="MyRefine has no setting 'N'"):
        MyRefine(PROGRAM, reward, N=3)


def test_a_type_error_from_inside_stays_a_type_error():
    @configurable()
    def broken(*, a):
        return int(a=a)

    with pytest.raises(TypeError):
        broken(a=1)
    with pytest.raises(TypeError, match="missing"):
        broken()
    with pytest.raises(ConfigurationError, match=r"^broken has no setting 'b'\."):
        broken(b=1)


def test_an_unknown_name_that_is_near_to_nothing_suggests_nothing():
    with pytest.raises(ConfigurationError, match=r"^thing has no setting 'zzzz'\. Use other=zzzz\.$"):
        refuse_unknown("thing", ["zzzz"], ["temperature", "n"], {}, "Use other={name}.")
    refuse_unknown("thing", ["n"], ["n"])


def test_a_coroutine_function_stays_one():
    is_async = asyncio.iscoroutinefunction if sys.version_info < (3, 12) else inspect.iscoroutinefunction
    assert is_async(dn.Optimizer.compile)
    assert is_async(dn.Evaluate.__call__)


@pytest.mark.parametrize("name", ["system", "system_prompt", "streaming", "proxies", "kwargs", "model_kwargs"])
def test_a_name_that_is_merely_similar_gets_no_advice_on_another_setting(name):
    with pytest.raises(ConfigurationError) as raised:
        dn.LM("openai/m", **{name: 1})
    message = str(raised.value)
    assert "stream(" not in message
    assert "finetuning" not in message
    assert "name it in the model" not in message


def test_a_misspelled_name_of_dspy_gets_advice():
    with pytest.raises(ConfigurationError, match="'rollout_ids': a further sample"):
        dn.LM("openai/m", rollout_ids=1)


def test_a_shown_signature_is_a_plain_one_when_it_is_copied_or_pickled():
    signature = inspect.signature(dn.Refine.__init__)
    plain = inspect.Signature(list(signature.parameters.values()), return_annotation=signature.return_annotation)
    assert signature == plain
    assert str(signature) == str(plain)
    assert signature.replace(return_annotation=int).return_annotation is int
    assert copy.deepcopy(signature) == plain
    assert pickle.loads(pickle.dumps(signature)) == plain
