"""ProgramOfThought: the model writes Python code, an isolated process runs it, and the model reads its output."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import create_model
from pydantic_core import to_jsonable_python

from dspynb.adapters.transcript import as_transcripts
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
_RESERVED_FIELDS = ("generated_code", "previous_code", "error", "final_generated_code", "code_output", "final_answer")

_CODE_INSTRUCTION = """

Write Python code that computes {outputs}. {variables}Modules of the standard library that compute can be imported \
(math, statistics, itertools, collections, re, json, datetime, fractions, decimal …) and no others; there are no \
files, no network and no other processes. Call final_answer(...) once with the result. Reason in comments; write \
only code."""
_CORRECTION_INSTRUCTION = "\n\nThe previous code failed. Correct the error and write the whole code again."
_ANSWER_INSTRUCTION = "\n\nThe code was run: take {outputs} from its output."

_OF_DSPY = {
    "max_iters": "max_iterations",
    "interpreter": "code runs in a process of its own, which Linux isolates; write run_code=True to allow it",
    "interpreter_factory": "code runs in a process of its own, which Linux isolates; write run_code=True to allow it",
}


class ProgramOfThought(Module):
    """The model writes code that computes the outputs. Code that fails is sent back to the model with its error.

    The code has the inputs as variables, in their JSON form. It returns its result with ``final_answer(...)``, a last
    expression, or printed text. Each run is a process of its own, which the kernel (Linux, seccomp) isolates from
    files, network and other processes.

    The predictors are ``generate``, ``regenerate`` (which gets the code and its error) and ``answer`` (which gets the
    code and its output). Source: Chen et al. 2022, Program of Thoughts Prompting (arXiv:2211.12588), section 2; the
    loop is DSPy's.

    Args:
        signature: The inputs and outputs, as a class or a string.
        run_code: Must be True, to allow running code that a model writes.
        max_iterations: Most programs that are run.
        timeout: Seconds for each program.
        memory_mb: Megabytes of address space for each program. Python itself takes 25.
        output_limit: Longest printed text, and longest result, in characters. The rest is dropped.
        lm: The model of all predictors. None: the model in scope.
        adapter: The adapter of all predictors. None: the adapter in scope.

    Raises:
        ConfigurationError: ``run_code`` is not True, or the kernel cannot isolate a process. Nothing is run then, and
            no model is called.
        CodeError: Every program failed.
        SignatureError: The signature has a field name that the predictors use themselves.

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
        self.signature = as_signature(signature)
        self.max_iterations = max_iterations
        self.limits = Limits(timeout, memory_mb, output_limit)
        generate, regenerate, answer = _signatures(self.signature)
        self.generate = Predict(generate, lm=lm, adapter=adapter)
        self.regenerate = Predict(regenerate, lm=lm, adapter=adapter)
        self.answer = Predict(answer, lm=lm, adapter=adapter)

    async def forward(self, **inputs: Any) -> Prediction:
        """Write, run and correct code; then read the outputs off its result."""
        inputs = self.signature.check_inputs(inputs, self._title())
        data = self._data(inputs)
        await check_isolation()
        generated = await self.generate(**inputs)
        for iteration in range(1, self.max_iterations + 1):
            code = _extract_code(generated.generated_code)
            result = await run_code(code, data, self.limits)
            problem = _problem(result)
            if problem is None:
                answer = await self.answer(**inputs, final_generated_code=code, code_output=_output_text(result))
                return Prediction(answer)
            if iteration == self.max_iterations:
                raise CodeError(self._title(), code=code, problem=problem, iterations=iteration)
            generated = await self.regenerate(**inputs, previous_code=code, error=problem)
        raise AssertionError("the last iteration returns or raises")

    def _fields(self, kind: str) -> Mapping[str, Field]:
        return self.signature.input_fields if kind == "input" else self.signature.output_fields

    def most_calls(self) -> int:
        """Calls for writing the most programs that may be run, and for reading the last result."""
        return self.max_iterations * self.generate.most_calls() + self.answer.most_calls()

    def _data(self, inputs: Mapping[str, Any]) -> Any:
        try:
            return to_jsonable_python(inputs, fallback=str)
        except ValueError as error:
            raise InputError(f"{self._title()}: the inputs cannot be passed to code as JSON: {error}") from None

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
    """Return the signatures of ``generate``, ``regenerate`` and ``answer``."""
    for name in _RESERVED_FIELDS:
        is_output_name = name in ("final_generated_code", "code_output")
        if name in signature.input_fields or (is_output_name and name in signature.output_fields):
            raise SignatureError(f"ProgramOfThought reserves the field name {name!r}; rename the signature's field")
    inputs = {n: (f.info.rebuild_annotation(), f.info) for n, f in signature.input_fields.items()}
    outputs = {n: (f.info.rebuild_annotation(), f.info) for n, f in signature.output_fields.items()}
    code = {"generated_code": (str, Output(desc="Python code"))}
    failure = {"previous_code": (str, Input()), "error": (str, Input(desc="why it failed"))}
    result = {"final_generated_code": (str, Input()), "code_output": (str, Input(desc="what it gave"))}
    output_names = _names(signature.output_fields)
    shown = as_transcripts(signature)
    variables = ""
    if inputs:
        variables = f"Its variables {_names(inputs)} hold the inputs, as JSON gives them. "
    code_instruction = signature.instruction + _CODE_INSTRUCTION.format(outputs=output_names, variables=variables)
    correction_instruction = code_instruction + _CORRECTION_INSTRUCTION
    answer_instruction = signature.instruction + _ANSWER_INSTRUCTION.format(outputs=output_names)
    name = signature.__name__
    return (
        _create_signature(f"{name}Code", code_instruction, {**shown, **code}),
        _create_signature(f"{name}Correction", correction_instruction, {**shown, **failure, **code}),
        _create_signature(f"{name}Answer", answer_instruction, {**inputs, **result, **outputs}),
    )


def _names(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in fields)


def _create_signature(name: str, instruction: str, definitions: Mapping[str, Any]) -> type[Signature]:
    fields: dict[str, Any] = dict(definitions)
    return create_model(name, __base__=Signature, __doc__=instruction, **fields)


def _extract_code(reply: str) -> str:
    """Return the code in a reply: its fenced blocks (the last fence may be open), or the whole reply without fences."""
    blocks = _FENCED.findall(reply)
    code = "\n".join(blocks) if blocks else _OPENED.split(reply, maxsplit=1)[-1]
    return textwrap.dedent(code).strip()


def _problem(result: CodeResult) -> str | None:
    """Return the error for ``regenerate``, or None if the code has a result."""
    printed = result.printed.strip()
    if result.failure is not None:
        if not printed:
            return str(result.failure)
        return f"{result.failure}\nIt had printed:\n{printed[-1000:]}"
    if not printed and result.value is None:
        return "the code gave no result: call final_answer(...) with it"
    return None


def _output_text(result: CodeResult) -> str:
    """Return the output of the code for ``answer``."""
    printed = result.printed.strip()
    if result.value is None:
        return printed
    if not printed:
        return result.value
    return f"{printed}\nfinal answer: {result.value}"
