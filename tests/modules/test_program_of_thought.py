"""ProgramOfThought: code is written, run, corrected, and its result read; nothing runs unless it may."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
from datetime import date

import pytest

import dspynb as dn
from dspynb.agents.sandbox import runner, seccomp
from dspynb.errors import AllAttemptsFailed, CodeError, ConfigurationError, InputError, ParseError, SignatureError
from tests.helpers import chat, prompt
from tests.modules.sandbox.helpers import linux

pytestmark = linux


class Sum(dn.Signature):
    """Add up the numbers."""

    numbers: list[int] = dn.Input()
    total: int = dn.Output()


def written(code):
    return chat(generated_code=code)


def program(*replies, signature=Sum, **options):
    lm = dn.ScriptedLM(replies)
    return dn.ProgramOfThought(signature, run_code=True, lm=lm, **options), lm


def run(coro):
    return asyncio.run(coro)


def test_code_computes_and_the_answer_is_read_off_its_output():
    pot, lm = program(written("final_answer(sum(numbers))"), chat(total="6"))
    prediction = run(pot(numbers=[1, 2, 3]))
    assert prediction.to_dict() == {"total": 6}
    first, last = map(prompt, lm.requests)
    assert "Add up the numbers." in first
    assert "variables `numbers` hold the inputs" in first
    assert "[[ ## code_output ## ]]\n6\n" in last
    assert "[[ ## final_generated_code ## ]]\nfinal_answer(sum(numbers))\n" in last
    assert [c.predictor for c in prediction.calls] == ["generate", "answer"]
    assert prediction.usage.calls == 2


def test_an_error_goes_back_with_the_code_and_the_correction_is_run():
    pot, lm = program(written("print('so far')\ntotal(numbers)"), written("sum(numbers)"), chat(total="3"))
    prediction = run(pot(numbers=[1, 2]))
    assert prediction.total == 3
    assert [c.predictor for c in prediction.calls] == ["generate", "regenerate", "answer"]
    inputs = prediction.calls[1].inputs
    assert inputs["previous_code"] == "print('so far')\ntotal(numbers)"
    assert inputs["error"] == (
        "NameError: name 'total' is not defined\nline 2, in <module>: total(numbers)\nIt had printed:\nso far"
    )
    assert "Correct the error" in prompt(lm.requests[1])
    assert "Correct the error" not in prompt(lm.requests[0])


@pytest.mark.parametrize("iterations", [1, 3])
def test_code_that_fails_each_time_is_one_clear_error_with_the_last_code(iterations):
    pot, lm = program(*[written(f"1 / 0  # {i}") for i in range(5)], max_iterations=iterations)
    with pytest.raises(CodeError) as raised:
        run(pot(numbers=[]))
    error = raised.value
    assert len(lm.requests) == error.iterations == iterations
    assert error.code == f"1 / 0  # {iterations - 1}"
    assert error.problem.startswith("ZeroDivisionError: division by zero")
    assert f"failed in {iterations} of {iterations} iterations" in str(error)
    assert "ZeroDivisionError" in str(error)
    assert pickle.loads(pickle.dumps(error)).args == error.args


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("while True: pass", "TimeLimit: the code did not end within 0.5 s"),
        ("x = 'a' * 10 ** 10", "MemoryError"),
        ("import socket; socket.socket()", "'socket' cannot be imported here"),
        ("import os; os.fork()", "PermissionError"),
        ("open('/etc/passwd').read()", "PermissionError"),
        ("import os; os._exit(0)", "Crash"),
        ("total = sum(numbers)", "the code gave no result: call final_answer(...)"),
        ("", "the code gave no result"),
        ("```python\n```", "the code gave no result"),
        ("Sure! Here it is.", "SyntaxError"),
    ],
)
def test_what_is_wrong_with_code_is_told_to_the_model(code, problem):
    pot, _ = program(written(code), written("6"), chat(total="6"), timeout=0.5)
    prediction = run(pot(numbers=[1, 2, 3]))
    assert prediction.total == 6
    assert problem in prediction.calls[1].inputs["error"]


@pytest.mark.parametrize(
    "reply",
    [
        "```python\nx = 1\nx + 1\n```",
        "```py\nx = 1\nx + 1\n```",
        "```\nx = 1\nx + 1\n```",
        "Here:\n```python\nx = 1\n```\nand then\n```Python\nx + 1\n```\nDone.",
        "```python\nx = 1\nx + 1",
        "Here:\n  ```python\n  x = 1\n  x + 1\n  ```",
        "x = '''\n'''\nx = 1\nx + 1",
    ],
)
def test_fences_are_taken_off(reply):
    pot, lm = program(written(reply), chat(total="2"))
    run(pot(numbers=[]))
    assert "[[ ## code_output ## ]]\n2\n" in prompt(lm.requests[1])


def test_inputs_reach_the_code_as_json_gives_them():
    class Kinds(dn.Signature):
        """Tell the kinds."""

        day: date = dn.Input()
        row: dict[str, float] = dn.Input()
        text: str = dn.Input()
        unit: str = dn.Input(default="m")
        kinds: list[str] = dn.Output()

    pot, lm = program(
        written("print(day, row['a'], text, unit)\n[type(x).__name__ for x in (day, row, text)]"),
        chat(kinds='["str"]'),
        signature=Kinds,
    )
    assert run(pot(day=date(2024, 2, 29), row={"a": 0.5}, text='"; import os; "')).kinds == ["str"]
    assert '2024-02-29 0.5 "; import os; " m\nfinal answer: ["str", "dict", "str"]' in prompt(lm.requests[1])


def test_inputs_are_checked_before_anything_is_asked_or_run():
    pot, lm = program()
    with pytest.raises(InputError, match=r"ProgramOfThought\(numbers: list\[int\] -> total: int\): .*missing"):
        run(pot())
    pot, lm = program(signature="data: bytes -> size: int")
    with pytest.raises(InputError, match="cannot be given to code as JSON"):
        run(pot(data=b"\xff"))
    assert lm.requests == []


@pytest.mark.parametrize(
    "arguments", [{}, {"run_code": False}, {"run_code": None}, {"run_code": 1}, {"run_code": "yes"}]
)
def test_it_is_off_unless_enabled(arguments):
    with pytest.raises(ConfigurationError, match="Pass run_code=True to allow it"):
        dn.ProgramOfThought(Sum, **arguments)


@pytest.mark.parametrize("without", ["machine", "seccomp"])
def test_where_the_kernel_does_not_isolate_no_model_is_asked_and_nothing_run(monkeypatch, without):
    monkeypatch.setattr(runner, "_isolated", False)
    if without == "machine":
        monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    else:
        monkeypatch.setattr(runner, "filter_program", lambda machine: b"")
    pot, lm = program(written("1"), chat(total="1"))
    with pytest.raises(ConfigurationError, match="none was run"):
        run(pot(numbers=[]))
    with pytest.raises(ConfigurationError, match="none was run"):  # no attempt of a search either
        run(dn.BestOfN(pot, lambda row, prediction: 1.0, n=3)(numbers=[]))
    assert lm.requests == []


@pytest.mark.parametrize(
    "options",
    [{"max_iterations": wrong} for wrong in (0, True, 1.5, None)]
    + [{"timeout": 0}, {"memory_mb": 10}, {"output_limit": 0}],
)
def test_options_out_of_range_are_refused_when_made(options):
    with pytest.raises(ConfigurationError, match="must be a"):
        dn.ProgramOfThought(Sum, run_code=True, **options)


@pytest.mark.parametrize(
    "signature", ["error -> total", "final_answer -> total", "a -> code_output", "generated_code -> a"]
)
def test_a_field_named_as_one_of_its_own_is_refused(signature):
    with pytest.raises(SignatureError, match="has a field .* of its own"):
        dn.ProgramOfThought(signature, run_code=True)


def test_an_output_may_be_called_error_or_final_answer():
    pot, _ = program(written("1"), chat(final_answer="1", error="none"), signature="a -> final_answer: int, error")
    assert run(pot(a="x")).to_dict() == {"final_answer": 1, "error": "none"}


def test_refine_over_it_gives_each_predictor_its_own_hint():
    advice = '{"generate": "use sum", "regenerate": "be careful", "answer": "digits only", "nobody": "x"}'
    pot, lm = program(
        *[written("numbers[9]"), written("0"), chat(total="0")],
        *[written("numbers[8]"), written("sum(numbers)"), chat(total="3")],
    )
    refine = dn.Refine(
        pot, lambda row, p: float(p.total == 3), n=2, hints="advisor", advisor_lm=dn.ScriptedLM([chat(advice=advice)])
    )
    prediction = run(refine(numbers=[1, 2]))
    assert prediction.total == 3
    assert prediction.run.attempts.hint[1] == {
        "generate": "use sum",
        "regenerate": "be careful",
        "answer": "digits only",
    }
    hints = ["use sum", "be careful", "digits only"]
    assert [[h for h in hints if f"Hint: {h}" in prompt(r)] for r in lm.requests] == [[]] * 3 + [[h] for h in hints]
    assert [path for path, _ in refine.named_predictors() if path != "advisor"] == ["generate", "regenerate", "answer"]


def test_code_that_fails_each_time_is_a_failed_attempt_of_refine():
    pot, _ = program(written("1 / 0"), written("2 / 0"), max_iterations=1)
    with pytest.raises(AllAttemptsFailed, match="ZeroDivisionError") as raised:
        run(dn.Refine(pot, lambda row, p: 1.0, n=2, hints=lambda attempts, program, inputs: "h")(numbers=[]))
    assert [type(e) for e in raised.value.exceptions] == [CodeError, CodeError]


def test_a_reply_that_cannot_be_read_names_its_predictor():
    pot, _ = program("no markers")
    with pytest.raises(ParseError, match="^generate: "):
        run(pot(numbers=[]))


def test_nothing_is_stored_on_the_module_by_a_call():
    pot, _ = program(written("1 / 0"), written("1"), chat(total="1"))
    state = lambda: {**vars(pot), **{p: dict(vars(x)) for p, x in pot.named_predictors()}}  # noqa: E731
    before = state()
    run(pot(numbers=[1]))
    assert state() == before
    copy.deepcopy(pot)


def test_calls_at_a_time_are_apart():
    def answer(request):
        text = prompt(request)
        if "code_output" in text:
            return chat(total=text.split("[[ ## code_output ## ]]\n")[-1].split("\n")[0])
        return written("sum(numbers)")

    pot = dn.ProgramOfThought(Sum, run_code=True, lm=dn.FunctionLM(answer))
    rows = [{"numbers": [i, i]} for i in range(8)]
    assert [p.total for p in run(pot.batch(rows))] == [2 * i for i in range(8)]


def test_stopping_the_run_kills_the_process(monkeypatch):
    popen, processes = subprocess.Popen, []

    def recording(*args, **kwargs):
        processes.append(popen(*args, **kwargs))
        return processes[-1]

    pot, _ = program(written("while True: pass"), timeout=60.0)

    async def main():
        await runner.check_isolation()
        monkeypatch.setattr(runner.subprocess, "Popen", recording)
        work = pot.start(numbers=[])
        async with asyncio.timeout(30):
            while not processes:  # noqa: ASYNC110  # another process is waited for
                await asyncio.sleep(0.01)
            work.stop()
            with pytest.raises(dn.RunStopped):
                await work

    run(main())
    assert processes[0].returncode is not None


@linux
def test_an_input_may_be_given_by_its_alias():
    class Aliased(dn.Signature):
        """Add up the numbers."""

        numbers: list[int] = dn.Input(alias="Some numbers")
        total: int = dn.Output()

    pot, _ = program(written("final_answer(sum(numbers))"), chat(total="6"), signature=Aliased)
    assert run(pot(**{"Some numbers": [1, 2, 3]})).total == 6
