"""What is sent to each chat model that litellm can route passes its checks, and nothing is left out needlessly.

    python -m tests.campaigns.litellm_models

For each chat entry of litellm's model map, the settings that a default Refine, BestOfN, COPRO and GEPA request, and
some more, are adapted as ``dn.LM`` adapts them. The result must pass ``litellm.get_optional_params`` without
``drop_params``. A setting that litellm accepts alone, with this value, must be sent. Entries that litellm cannot route
are listed with ``--list``. Providers that log in over the network are skipped.

``--every N``: only each N-th entry.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import io
import logging
import os
import sys
import warnings

import dspynb as dn
from dspynb import errors
from dspynb.lm.adaptation import Adaptation
from dspynb.lm.profiles import LIMIT_NAMES
from dspynb.lm.providers.litellm_engine import LiteLLMEngine
from dspynb.lm.providers.litellm_http import HTTPGuard

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no network request at import

LOGS_IN = frozenset({"github_copilot", "chatgpt", "gigachat", "watsonx", "watsonx_text", "sap"})
"""Providers for which litellm fetches a token before it reads a request."""
REQUESTS = {
    "Refine, BestOfN and GEPA": {"temperature": 1.0},
    "the README": {"temperature": 0.7},
    "COPRO": {"temperature": 1.4},
    "a limit": {"temperature": 0.0, "max_tokens": 1000},
    "many settings": {"temperature": 0.5, "top_p": 0.9, "seed": 1, "stop": ["end"], "n": 2, "max_tokens": 1000},
    "effort": {"reasoning_effort": "low"},
}
MESSAGES = ({"role": "user", "content": "hi"},)


def chat_models(litellm):
    """The chat entries as (name for dn.LM, model, provider), and those that litellm cannot route."""
    models, others = [], []
    for entry, values in litellm.model_cost.items():
        if values.get("mode") != "chat":
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                model, provider, _, _ = litellm.get_llm_provider(entry)
            except Exception:
                others.append(entry)
                continue
        if provider in LOGS_IN:
            continue
        name = entry if entry.startswith(f"{provider}/") else f"{provider}/{entry}"
        models.append((name, model, provider))
    return models, others


def refusal(litellm, model, provider, settings):
    """The error that litellm raises for these settings; None if it accepts them."""
    try:
        litellm.get_optional_params(model=model, custom_llm_provider=provider, **settings)
    except Exception as error:
        return error
    return None


async def sent_settings(litellm, lm, model, provider, requested):
    """The settings that are sent at the end, and the number of refusals before."""
    refusals = []

    async def send(request, settings):
        error = refusal(litellm, model, provider, settings)
        if error is None:
            sent.append(settings)
            return dn.LMReply("ok")
        refusals.append(error)
        if isinstance(lm._engine, LiteLLMEngine):
            raise lm._engine._model_error(error, HTTPGuard(), "")
        raise error  # the direct client has no litellm that refuses first

    sent = []
    adaptation = Adaptation(lm.name, lm.profile)
    await adaptation.send(dn.LMRequest(MESSAGES), requested, send)
    return sent[0]


def needless(litellm, model, provider, requested, sent):
    """The settings that litellm accepts alone but that were not sent."""
    names = []
    for name, value in requested.items():
        is_sent = sent.get(name) == value
        if name in LIMIT_NAMES:
            is_sent = any(sent.get(limit) == value for limit in LIMIT_NAMES)
        if not is_sent and refusal(litellm, model, provider, {name: value}) is None:
            names.append(name)
    return names


async def run(every, show_others):
    """Check the models; returns whether all pass."""
    import litellm

    litellm.suppress_debug_info = True
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    models, others = chat_models(litellm)
    failures = collections.defaultdict(list)
    count = 0
    for name, model, provider in models[::every]:
        try:
            lm = dn.LM(name)
        except errors.ConfigurationError as error:
            failures[f"no LM: {str(error)[:60]}"].append(name)
            continue
        for title, requested in REQUESTS.items():
            count += 1
            try:
                sent = await sent_settings(litellm, lm, model, provider, requested)
            except Exception as error:
                failures[f"{title}: {type(error).__name__}"].append(f"{name}: {str(error)[:250]}")
                continue
            left_out = needless(litellm, model, provider, requested, sent)
            if left_out:
                failures[f"{title}: not sent: {left_out}"].append(name)
    for kind, names in sorted(failures.items()):
        print(f"{len(names)} × {kind}; the first: {names[:3]}")
    failed = sum(map(len, failures.values()))
    print(f"models {len(models[::every])}, requests {count}, failed {failed}, not routable {len(others)}")
    if show_others:
        print("\n".join(others))
    return not failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    with warnings.catch_warnings(action="ignore"):
        sys.exit(not asyncio.run(run(arguments.every, arguments.list)))


if __name__ == "__main__":
    main()
