"""``dspynb doctor --live``: the checks of one model, under a limit of their cost."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from dspynb.adapters.resolve import resolve_adapter
from dspynb.contrib.doctor.abilities import say_ok
from dspynb.contrib.doctor.installed import head, version_of
from dspynb.contrib.doctor.live_report import LiveReport
from dspynb.contrib.doctor.model_checks import MODEL_CHECKS, CheckResult, ModelCheck, Outcome, run_check
from dspynb.contrib.doctor.spending import SpendingLimit
from dspynb.errors import BudgetExhausted, ConfigurationError, ModelAdaptedWarning, ModelError
from dspynb.lm.client import LM
from dspynb.lm.providers.addresses import base_in_environment
from dspynb.lm.providers.prices import HighestPrices, highest_prices
from dspynb.redact import without_password

__all__ = ["LiveOptions", "check_model", "run_live"]

_RETRIES = 2
_FREE = HighestPrices(0.0, 0.0)
_LOCAL_PROVIDERS = frozenset({"llamafile", "ollama", "ollama_chat"})
"""Providers whose address is on this machine, unless another one is given."""
_FIRST = "first reply"
"""The name of the short request before the checks."""


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """The settings of ``dspynb doctor --live``.

    ``model``: ``provider/model``. ``api_base``: the address of its server; None for that of the provider. ``max_usd``:
    the limit of the cost, in USD. ``prices``: USD for a million tokens of prompts and of replies, where litellm's map
    does not have them. ``free``: whether the model costs nothing. ``max_tokens``: the limit of each reply, in tokens.
    ``adapter``: that of the programs, such as ``json``; None for the default. ``api_key_env``: the environment variable
    with the key; None for that of the provider.
    """

    model: str
    api_base: str | None = None
    max_usd: float = 0.05
    prices: tuple[float, float] | None = None
    free: bool = False
    max_tokens: int = 1024
    adapter: str | None = None
    api_key_env: str | None = None


def run_live(options: LiveOptions, *, as_json: bool = False) -> int:
    """Check a model and print the report, with progress on stderr. Returns the exit status: 1 if a check fails.

    Raises ModelError if the model cannot be called, BudgetExhausted if the limit allows no call, and ConfigurationError
    for wrong settings and for a model without a known price.
    """
    report = asyncio.run(check_model(options, _print_progress))
    sys.stdout.write(report.json() if as_json else report.text())
    return 0 if report.fine else 1


def _print_progress(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


async def check_model(options: LiveOptions, progress: Callable[[str], object] = len) -> LiveReport:
    """Send one short request, then run the checks, one call at a time. No call is sent that could pass the limit.

    ``progress``: called with the name of each check when it begins, and with its outcome when it ends. Raises as
    `run_live` does.
    """
    _check_options(options)
    lm = _lm(options, retries=_RETRIES)
    prices = _prices(options, lm)
    limit = SpendingLimit(options.max_usd, prices)
    limit.watch(lm)
    results = [await _first_reply(options, limit)]
    for number, check in enumerate(MODEL_CHECKS, 1):
        if limit.refusal is not None:
            results.append(CheckResult(check.name, "not run", f"the limit of USD {options.max_usd:g}"))
            continue
        progress(f"{number}/{len(MODEL_CHECKS)} {check.name} … ")
        result = await _limited_check(check, lm, options, limit)
        progress(f"{result.outcome}, calls: {result.calls}\n")
        results.append(result)
    adapted: list[str] = []
    for result in results:
        adapted += result.adapted
    max_usd = None if prices == _FREE else options.max_usd
    return LiveReport(_head(options, lm, prices), adapted, results, limit.usd, max_usd)


def _check_options(options: LiveOptions) -> None:
    """Raise ConfigurationError for settings that are wrong."""
    if not (math.isfinite(options.max_usd) and options.max_usd > 0):
        raise ConfigurationError(f"--max-usd must be a number above 0, got {options.max_usd:g}")
    if options.max_tokens < 1:
        raise ConfigurationError(f"--max-tokens must be at least 1, got {options.max_tokens}")
    if options.prices is not None and not all(math.isfinite(price) and price >= 0 for price in options.prices):
        raise ConfigurationError("--prices must be two numbers of at least 0: USD for a million tokens")
    if options.prices is not None and options.free:
        raise ConfigurationError("--prices and --free contradict each other: give one of them")
    resolve_adapter(options.adapter)  # raises for an unknown name


def _lm(options: LiveOptions, *, retries: int) -> LM:
    key = None
    if options.api_key_env is not None:
        key = os.environ.get(options.api_key_env, "").strip()
        if not key:
            raise ConfigurationError(f"--api-key-env: the environment variable {options.api_key_env} is not set")
    return LM(
        options.model,
        api_base=options.api_base,
        api_key=key,
        retries=retries,
        concurrency=1,
        cache=False,
        max_tokens=options.max_tokens,
    )


def _prices(options: LiveOptions, lm: LM) -> HighestPrices | None:
    """The prices of a model; None for those of litellm's map. Raises ConfigurationError if they are unknown."""
    if options.free:
        return _FREE
    if options.prices is not None:
        prompt, reply = options.prices
        return HighestPrices(prompt / 1e6, reply / 1e6)
    known = highest_prices(lm.name, 0, lm.price)
    if known is not None:
        return _FREE if known == _FREE else None
    if _is_local(options):
        return _FREE
    raise ConfigurationError(
        f"{options.model}: its price is unknown, so the limit of USD {options.max_usd:g} could not be kept, and "
        "nothing was sent. Give the prices, --prices INPUT OUTPUT (USD for a million tokens of prompts and of "
        "replies), or --free for a model that costs nothing"
    )


def _is_local(options: LiveOptions) -> bool:
    """Whether the model's server is on this machine."""
    provider = options.model.partition("/")[0]
    address = options.api_base or base_in_environment(provider)
    if address is None:
        return provider in _LOCAL_PROVIDERS
    host = urlsplit(address).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _first_reply(options: LiveOptions, limit: SpendingLimit) -> CheckResult:
    """Send a short request without retries. Raises ModelError if the model cannot be called, and BudgetExhausted if the
    limit does not allow the request."""
    lm = _lm(options, retries=0)  # another model than that of the checks, which report what they adapt
    limit.watch(lm)
    detail = ""
    try:
        with warnings.catch_warnings(action="ignore", category=ModelAdaptedWarning):
            usage = (await say_ok(lm)).usage
    except ModelError as error:
        if error.usage is None:  # no reply
            raise
        usage = error.usage
        detail = str(error)
    except BudgetExhausted as error:
        raise BudgetExhausted(f"{error}: nothing was sent; raise --max-usd, or lower --max-tokens") from None
    outcome: Outcome = "reply not usable" if detail else "works"
    return CheckResult(_FIRST, outcome, detail, calls=1, tokens=usage.tokens, usd=limit.usd)


async def _limited_check(check: ModelCheck, lm: LM, options: LiveOptions, limit: SpendingLimit) -> CheckResult:
    usd_before = limit.usd
    result = await run_check(check, lm, options.adapter)
    result = replace(result, usd=limit.usd - usd_before)
    if limit.refusal is None:
        return result
    detail = f"the limit of USD {options.max_usd:g}, after {result.calls} calls: {limit.refusal}"
    if result.outcome == "fails":
        return replace(result, detail=f"{result.detail}; not run to its end: {detail}")
    return replace(result, outcome="not run", detail=detail)


def _head(options: LiveOptions, lm: LM, prices: HighestPrices | None) -> dict[str, str]:
    """The versions and settings of the report, by name."""
    versions = head()
    facts = {
        "model": options.model,
        "dspynb": versions["dspynb"],
        "litellm": version_of("litellm") or "not installed",
        "Python": f"{versions['python']}, {versions['platform']}",
    }
    if options.api_base is not None:
        facts["address"] = str(without_password(options.api_base))
    facts["settings"] = ", ".join(_settings(options))
    facts["prices"] = _describe_prices(lm, prices)
    facts["profile"] = lm.profile.describe()
    facts["tools"] = "native" if lm.native_tools else "as text"
    return facts


def _settings(options: LiveOptions) -> Iterator[str]:
    yield f"max_tokens {options.max_tokens}"
    if options.adapter is not None:
        yield f"adapter {options.adapter}"


def _describe_prices(lm: LM, prices: HighestPrices | None) -> str:
    if prices == _FREE:
        return "none: the model counts as free"
    known = prices or highest_prices(lm.name, 0, lm.price)
    if known is None:
        return "unknown"
    text = (
        f"USD {known.prompt_token * 1e6:g} and {known.reply_token * 1e6:g} for a million tokens of prompts and replies"
    )
    if known.call:
        text += f", and {known.call:g} for a call"
    return text
