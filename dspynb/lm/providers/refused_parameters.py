"""The parameter that an error response refuses, and the values that the response allows."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from dspynb.lm.providers.error_report import ErrorReport
from dspynb.lm.providers.parameter_wordings import CLEAR_FEATURES, FEATURES, PARAMETERS, FeatureWording

__all__ = ["RefusedParameter", "allowed_values", "excessive_output", "refused_parameter"]


class RefusedParameter(NamedTuple):
    """A parameter that a server does not accept, or whose value it does not accept.

    ``name``: the name in the provider's words. ``allowed``: the smallest and the largest value that the response
    allows, ``-inf`` or ``inf`` for a bound that it does not name; None if it names none.
    """

    name: str
    allowed: tuple[float, float] | None = None


_STATUSES = (None, 400, 404, 405, 422, 500, 501)
"""The statuses of a refusal. llama.cpp and Ollama refuse some parameters with 500, OpenRouter with 404."""
_NO_SETTINGS = frozenset(
    {"messages", "message", "model", "models", "input", "inputs", "prompt", "contents", "content", "system", "role"}
    | {"request", "body", "params", "param", "parameter", "parameters", "input_tokens", "input_text", "it", "this"}
    | {"value", "field", "argument", "type", "schema", "api_key", "key", "text", "image", "image_url", "source"}
    | {"tool_calls", "tool_call_id", "tool_call", "tool_use", "tool_use_id", "tool_result", "name", "function"}
    | {"assistant", "internalerror", "error"}
)
"""Names that are no settings: leaving them out is no way to adapt a request."""
_CONTAINERS = frozenset(
    {"body", "request", "parameters", "parameter", "generationconfig", "generation_config", "inferenceconfig"}
    | {"generatecontentrequest", "generate_content_request", "additionalmodelrequestfields", "options", "config"}
    | {"extra_body"}
)
"""The parts of a path before the name of a setting, as in ``generation_config.temperature``."""
_TOOLS = ("tool calling", "tool_calling", "function_call", "functions")
_MISTAKES = re.compile(
    r"missing required|required parameter|field required|missing field|invalid type|is not of type|must contain the "
    r"word|valid (string|integer|boolean|list|dictionary)|should be an? (valid )?(string|number|integer|boolean|list)",
    re.IGNORECASE,
)
"""A value of a wrong type and a missing field are mistakes in the request, which any model would refuse."""
_MISTAKE_CODES = frozenset(
    {"invalid_type", "missing_required_parameter", "missing", "string_type", "float_type", "int_type", "bool_type"}
    | {"float_parsing", "int_parsing", "list_type", "dict_type", "invalid_api_key", "model_not_found"}
)
_REFUSED = re.compile(
    r"not support|n't support|unsupported|not (?:be )?(?:allowed|permitted|enabled|available|a valid|valid)|"
    r"unavailable|requires|requested exceeds|only one|invalid|must|should|no endpoints|value is not one of|fail|"
    r"unknown|error|than",
    re.IGNORECASE,
)


def refused_parameter(report: ErrorReport) -> RefusedParameter | None:
    """The parameter that an error response refuses; None if it refuses none.

    The response may refuse the parameter as such, or its value, as in ``temperature: range: 0..1``. A prompt that is
    too long, a wrong type and a missing field are no refusals of a parameter.
    """
    text = report.text
    if report.status not in _STATUSES or report.codes & _MISTAKE_CODES or _MISTAKES.search(text):
        return None
    excessive = excessive_output(text)
    if excessive is not None:
        return excessive
    name = _setting(report.parameter)
    name = name or _feature(text, CLEAR_FEATURES)
    name = name or _named(text)
    name = name or _feature(text, FEATURES)
    if name is None:
        return None
    return RefusedParameter(name, allowed_values(text))


_REQUESTED = re.compile(
    r"maximum context length is (?P<limit>\d{1,15}) tokens.{0,40}?you requested "
    r"(?:\d{1,15} tokens \((?P<prompt>\d{1,15}) in the (?:messages|prompt)[^)]{0,80}? "
    r"(?P<output>\d{1,15}) in the completion|"
    r"(?P<new_output>\d{1,15}) output tokens and your prompt contains (?:at least )?(?P<new_prompt>\d{1,15}))",
    re.IGNORECASE | re.DOTALL,
)
"""The words of OpenAI and vLLM for a prompt and a reply that exceed the context together."""


def excessive_output(text: str) -> RefusedParameter | None:
    """The refusal of a limit of the reply that alone exceeds the context, so that no prompt is short enough."""
    match = _REQUESTED.search(text)
    if match is None:
        return None
    limit = int(match["limit"])
    prompt = int(match["prompt"] or match["new_prompt"])
    output = int(match["output"] or match["new_output"])
    if output < limit or prompt >= limit:
        return None
    return RefusedParameter("max_tokens", (1.0, float(limit - prompt)))


def _named(text: str) -> str | None:
    for wording in PARAMETERS:
        match = wording.pattern.search(text)
        if match is None:
            continue
        groups = match.groupdict()
        name = _setting(groups.get("name") or groups.get("setting") or groups.get("bare") or "")
        if name is not None:
            return name
    return None


def _feature(text: str, wordings: tuple[FeatureWording, ...]) -> str | None:
    for wording in wordings:
        if wording.pattern.search(text) and _REFUSED.search(text):
            return wording.parameter
    return None


def _setting(path: str) -> str | None:
    """The setting in a path: ``response_format`` for ``response_format.type``. None if it is no setting."""
    for part in re.split(r"[.\[\]]+", path.strip("`'\" ")):
        if part.lower() in _CONTAINERS:
            continue
        if part.lower() in _TOOLS:
            return "tools"
        if part.lower() in _NO_SETTINGS or not re.fullmatch(r"[A-Za-z_][\w-]*", part):
            return None
        return part
    return None


_NUMBER = r"[`'\"(]{0,2}(-?\d{1,15}(?:\.\d{1,15})?)[`'\")]{0,2}"
_ONLY = re.compile(
    rf"only (?:the )?(?:default )?(?:value )?{_NUMBER} (?:value )?is|only \w{{1,60}}={_NUMBER} is|"
    rf"only be set to {_NUMBER}|"
    rf"must be (?:equal to |set to )?(?:exactly )?{_NUMBER}(?= (?:when|for|with)|[.,]|$)",
    re.IGNORECASE,
)
_RANGE = re.compile(
    rf"(?P<open>[\[(]) ?{_NUMBER} ?, ?{_NUMBER} ?(?P<close>[\])])|"
    rf"(?:range:? |between |from ){_NUMBER}(?: \((?P<low>in|ex)clusive\))?(?: ?\.\. ?| and | to ){_NUMBER}"
    r"(?: \((?P<high>in|ex)clusive\))?",
    re.IGNORECASE,
)
_OUTPUT_TOKENS = re.compile(
    r"maximum context length is (\d{1,15}) tokens[^.]{0,80}?request has (\d{1,15}) input tokens|"
    r"max_\w{0,20}tokens=\d{1,15} ?cannot be greater than \w{1,40}=(?:\w{1,40}=)?(\d{1,15})",
    re.IGNORECASE,
)
_MOST = re.compile(
    r"(<=|<|less (?:than )?or equal to|at most|lower than or equal to|up to|\d{1,15} > (?=\d)|"
    r"(?:limit|maximum) (?:of|is)|max allowed:|"
    rf"(?<!greater than )(?:less|lower|smaller) than|cannot exceed|exceed) ?{_NUMBER}",
    re.IGNORECASE,
)
_LEAST = re.compile(
    r"(>=|greater (?:than )?or equal to|at least|higher than or equal to|(?<!\d )>|"
    rf"(?:greater|higher|larger) than(?! the max)) ?{_NUMBER}",
    re.IGNORECASE,
)
_OPEN = (">", "greater than", "higher than", "larger than", "<", "less than", "lower than", "smaller than")
_STEP = 0.01
"""The distance that is kept from a bound that is itself not allowed, for numbers with a fraction."""


def allowed_values(text: str) -> tuple[float, float] | None:
    """The smallest and the largest value that a message allows, or None. A bound that it does not name is infinite."""
    only = _ONLY.search(text)
    if only is not None:
        value = float(next(group for group in only.groups() if group is not None))
        return value, value
    tokens = _OUTPUT_TOKENS.search(text)
    if tokens is not None:
        if tokens[3] is not None:
            return 1.0, float(tokens[3])
        return 1.0, float(int(tokens[1]) - int(tokens[2]))
    interval = _RANGE.search(text)
    if interval is not None:
        return _interval(interval)
    most = _MOST.search(text)
    least = _LEAST.search(text)
    if most is None and least is None:
        return None
    low = -math.inf
    high = math.inf
    if least is not None:
        low = _bound(least[2], is_open=least[1].lower() in _OPEN, step=1)
    if most is not None:
        high = _bound(most[2], is_open=most[1].lower() in _OPEN, step=-1)
    return low, high


def _interval(match: re.Match[str]) -> tuple[float, float]:
    numbers = [group for group in match.groups() if group and group[-1].isdecimal()]
    open_low = match["open"] == "(" or match["low"] == "ex"
    open_high = match["close"] == ")" or match["high"] == "ex"
    return _bound(numbers[0], is_open=open_low, step=1), _bound(numbers[1], is_open=open_high, step=-1)


def _bound(number: str, *, is_open: bool, step: int) -> float:
    """A bound as a number. An open bound is moved by one for an integer of some size, else by ``_STEP``."""
    value = float(number)
    if not is_open:
        return value
    if "." not in number and value > 2:
        return value + step
    return value + step * _STEP
