"""ProgramOfThought: the model writes Python code, an isolated process runs it, the outputs are read off its result."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import create_model
from pydantic_core import to_jsonable_python

from dspynb.agents.sandbox.runner import CodeResult, CodeTimeout, Limits, Memory, OutputLimit, check_isolation, run_code
from dspynb.data import Prediction
from dspynb.errors import CodeError, ConfigurationError, InputError, SignatureError
from dspynb.keywords import configurable
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.options import PositiveInt
from dspynb.signatures.fields import Field, Input, Output
from dspynb.signatures.signature import Signature, as_signature

__all__ = ["ProgramOfThought"]

_FENCED = re.compile(
    r"^[ \t]*```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE
)
_OPENED = re.compile(r"^[ \t]*```[ \t]*(?:python3?|py)?[ \t]*\n", re.MULTILINE | re.IGNORECASE)
_OWN = ("generated_code", "previous_code", "error", "final_generated_code", "code_output", "final_answer")

_HOW = """

Write Python code that computes {wanted}. {given}Modules of the standard library that compute can be imported (math, \
statistics, itertools, collections, re, json, datetime, fractions, decimal …) and no others; there are no files, no \
network and no other processes. Call final_answer(...) once with the result. Reason in comments; write only code."""
_AGAIN = "\n\nThe previous code failed. Correct the error and write the whole code again."
_READ = "\n\nThe code was run: take {wanted} from its output."

_OF_DSPY = {
    "max_iters": "max_iterations",
    "interpreter": "code runs in a process of its own, which Linux isolates; write run_code=True to allow it",
    "interpreter_factory": "code runs in a process of its own, which Linux isolates; write run_code=True to allow it",
}


class ProgramOfThought(Module):
    """The model writes code that computes the outputs; code that fails goes back to the model with its error.

    ``run_code=True`` says that code which a model wrote may be run at all; without it a ConfigurationError is raised.
    Each run is a process of its own, which the kernel (Linux, seccomp) keeps from files, network and other processes;
    where it does not, ConfigurationError is raised before a model is asked. The code has the inputs as variables, as
    JSON gives them, and gives its result with ``final_answer(...)``, a last expression, or by printing.

    ``max_iterations``: how many codes are run at most; ``timeout``: seconds for each; ``memory_mb``: megabytes of
    address space for each (Python itself takes 25); ``output_limit``: characters of printed text and of the result that
    are kept, each. Predictors: ``generate``, ``regenerate`` (given the code and its error), ``answer`` (given the code
    and its output). Raises CodeError when every code failed, and SignatureError for fields named as those predictors'
    own. Source: Chen et al. 2022, Program of Thoughts Prompting (arXiv:2211.12588), section 2; the loop is DSPy's.

    >>> lm = dn.ScriptedLM(["generated_code: final_answer(sum(numbers))", "total: 6"])
    >>> program = dn.ProgramOfThought("numbers: list[int] -> total: int", run_code=True, lm=lm)
    >>> program.run_sync(numbers=[1, 2, 3]).total
    6
    """

    @configurable(renamed=_OF_DSPY)
    def __init__(
        self,
        signature: type[Signature] | str,
        *,
        run_code: bool = False,
        max_iterations: PositiveInt = 3,
        timeout: CodeTimeout = 5.0,
        memory_mb: Memory = 256,
        output_limit: OutputLimit = 10_000,
        lm: Any = None,
        adapter: Any = None,
    ) -> None:
        _check_allowed(run_code)
        self.signature, self.max_iterations = as_signature(signature), max_iterations
        self.limits = Limits(timeout, memory_mb, output_limit)
        first, again, read = _signatures(self.signature)
        self.generate = Predict(first, lm=lm, adapter=adapter)
        self.regenerate = Predict(again, lm=lm, adapter=adapter)
        self.answer = Predict(read, lm=lm, adapter=adapter)

    async def forward(self, **inputs: Any) -> Prediction:
        """Write, run and correct code; then read the outputs off its result."""
        inputs = self.signature.check_inputs(inputs, self._title())
        data = self._data(inputs)
        await check_isolation()
        written = await self.generate(**inputs)
        for iteration in range(1, self.max_iterations + 1):
            code = _code_of(written.generated_code)
            result = await run_code(code, data, self.limits)
            problem = _problem(result)
            if problem is None:
                answer = await self.answer(**inputs, final_generated_code=code, code_output=_output(result))
                return Prediction(answer)
            if iteration == self.max_iterations:
                raise CodeError(self._title(), code=code, problem=problem, iterations=iteration)
            written = await self.regenerate(**inputs, previous_code=code, error=problem)
        raise AssertionError("the last iteration returns or raises")

    def _fields(self, kind: str) -> Mapping[str, Field]:
        return self.signature.input_fields if kind == "input" else self.signature.output_fields

    def most_calls(self) -> int:
        """Those of every code that may be written, and of reading the result."""
        return self.max_iterations * self.generate.most_calls() + self.answer.most_calls()

    def _data(self, inputs: Mapping[str, Any]) -> Any:
        try:
            return to_jsonable_python(inputs, fallback=str)
        except ValueError as error:
            raise InputError(f"{self._title()}: the inputs cannot be given to code as JSON: {error}") from None

    def _title(self) -> str:
        return f"{type(self).__name__}({self.signature.describe()})"

    def _run_settings(self) -> dict[str, Any]:
        limits = self.limits
        return {"max_iterations": self.max_iterations, "timeout": limits.timeout, "memory_mb": limits.memory_mb}


def _check_allowed(run_code: bool) -> None:
    if run_code is not True:
        raise ConfigurationError(
            "ProgramOfThought runs Python code that a model writes. Pass run_code=True to allow it: each code runs in "
            "a process of its own, with limits on time and memory, which the kernel (Linux, seccomp) keeps from files, "
            "network and other processes; where the kernel cannot do that, nothing is run."
        )


def _signatures(signature: type[Signature]) -> tuple[type[Signature], type[Signature], type[Signature]]:
    """Those of ``generate``, ``regenerate`` and ``answer``."""
    for name in _OWN:
        if name in signature.input_fields or (name in signature.output_fields and name in _OWN[3:5]):
            raise SignatureError(f"ProgramOfThought has a field {name!r} of its own; give yours another name")
    given = {n: (f.info.rebuild_annotation(), f.info) for n, f in signature.input_fields.items()}
    outputs = {n: (f.info.rebuild_annotation(), f.info) for n, f in signature.output_fields.items()}
    code = {"generated_code": (str, Output(desc="Python code"))}
    failed = {"previous_code": (str, Input()), "error": (str, Input(desc="why it failed"))}
    result = {"final_generated_code": (str, Input()), "code_output": (str, Input(desc="what it gave"))}
    wanted = _names(signature.output_fields)
    variables = f"Its variables {_names(given)} hold the inputs, as JSON gives them. " if given else ""
    task = signature.instruction
    how = task + _HOW.format(wanted=wanted, given=variables)
    return (
        _made(f"{signature.__name__}Code", how, {**given, **code}),
        _made(f"{signature.__name__}Correction", how + _AGAIN, {**given, **failed, **code}),
        _made(f"{signature.__name__}Answer", task + _READ.format(wanted=wanted), {**given, **result, **outputs}),
    )


def _names(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in fields)


def _made(name: str, instruction: str, definitions: Mapping[str, Any]) -> type[Signature]:
    fields: dict[str, Any] = dict(definitions)
    return create_model(name, __base__=Signature, __doc__=instruction, **fields)


def _code_of(reply: str) -> str:
    """The code in a reply: its fenced blocks where there are any, an opened one too, else all of it."""
    blocks = _FENCED.findall(reply)
    code = "\n".join(blocks) if blocks else _OPENED.split(reply, maxsplit=1)[-1]
    return textwrap.dedent(code).strip()


def _problem(result: CodeResult) -> str | None:
    """What ``regenerate`` is told; None if the code gave something."""
    printed = result.printed.strip()
    if result.failure is not None:
        return f"{result.failure}\nIt had printed:\n{printed[-1000:]}" if printed else str(result.failure)
    return None if printed or result.value is not None else "the code gave no result: call final_answer(...) with it"


def _output(result: CodeResult) -> str:
    """What ``answer`` is told."""
    printed = result.printed.strip()
    if result.value is None:
        return printed
    return f"{printed}\nfinal answer: {result.value}" if printed else result.value
