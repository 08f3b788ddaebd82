"""A provider that sends bills: its own tokenizer, prices, faults and ledger, in a process of its own.

    python -m tests.campaigns.paid_server

prints the address that it listens at. All that it does with a request follows from the text of the request and from how
often it was sent, so that two runs differ in their timing only. Each ``/TRIAL-LATENCY/v1`` has a ledger of its own:
``GET /ledger/TRIAL-LATENCY`` returns calls, tokens, USD, the largest reply and when the last request began.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import json
import math
import random
import re
import sys
import time

from aiohttp import web

PROMPT_PRICE = 1e-6
REPLY_PRICE = 4e-6
MEDIAN = 60
"""Tokens of half of the replies."""
_FIELDS = re.compile(r"\[\[ ## (\w+) ## \]\]")
_FAULTS = ("rate limit", "down", "empty", "unreadable")


class Book:
    """What one key has spent, and its requests."""

    def __init__(self):
        self.calls = self.prompt = self.reply = self.largest = 0
        self.last = 0.0
        self.seen = collections.Counter()


BOOKS = collections.defaultdict(Book)


def draw(*key):
    """A random generator that the key decides."""
    return random.Random(hashlib.sha256(repr(key).encode()).hexdigest())


def prompt_tokens(messages):
    """Tokens of a prompt: 0.6 to 1.8 for four bytes, as the text decides, and hidden ones for each message."""
    tokens = 0
    for message in messages:
        size = len(message["content"].encode())
        tokens += min(size, math.ceil(size / 4 * draw(message["content"]).uniform(0.6, 1.8))) + 7
    return tokens + 20


def reply_text(messages, words):
    """A reply with all fields that the prompt asks for."""
    prompt = next((m["content"] for m in reversed(messages) if "Respond with" in m["content"]), "Respond with")
    names = list(dict.fromkeys(_FIELDS.findall(prompt[prompt.rfind("Respond with") :])))
    names = [name for name in names if name != "completed"] or ["answer"]
    parts = [f"[[ ## {name} ## ]]\n{json.dumps({'self': words}) if name == 'advice' else words}" for name in names]
    return "\n\n".join([*parts, "[[ ## completed ## ]]"])


async def complete(request):
    """One chat completion."""
    key = request.match_info["key"]
    trial, _, latency = key.partition("-")
    body = await request.json()
    book = BOOKS[key]
    book.last = time.time()
    text = json.dumps([body["messages"], body.get("temperature"), body.get("seed")])
    number = book.seen[text] = book.seen[text] + 1
    # A reply that fails for good is not stored in a cache, so that timing decides how often it is requested and billed.
    is_cached = trial.endswith("c")
    chance = draw(trial, text) if is_cached else draw(trial, text, number)
    await asyncio.sleep(draw(latency, text, number).uniform(0.0005, 0.01))
    fault = draw(trial, text, number).choices((None, *_FAULTS), (88, 3, 2, 3, 0 if is_cached else 4))[0]
    if fault == "rate limit":
        return web.json_response({"error": {"message": "rate limit", "type": "rate_limit"}}, status=429)
    if fault == "down":
        return web.json_response({"error": {"message": "overloaded"}}, status=503)
    tokens = max(1, round(chance.lognormvariate(math.log(MEDIAN), 0.6)))
    most = body.get("max_tokens")
    finish = "stop"
    if most is not None and tokens >= most:
        tokens, finish = most, "stop" if is_cached else "length"
    content = reply_text(body["messages"], f"words {chance.random():.6f}")
    if fault == "empty":
        content = ""
    elif fault == "unreadable":
        content = content.replace("[[ ##", "<").replace("## ]]", ">")
    prompt = prompt_tokens(body["messages"])
    book.calls += 1
    book.prompt += prompt
    book.reply += tokens
    book.largest = max(book.largest, tokens)
    usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return web.json_response(
        {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    )


async def ledger(request):
    """What a key has spent."""
    book = BOOKS[request.match_info["key"]]
    usd = book.prompt * PROMPT_PRICE + book.reply * REPLY_PRICE
    facts = {"calls": book.calls, "tokens": book.prompt + book.reply, "usd": usd}
    return web.json_response({**facts, "largest": book.largest, "last": book.last})


async def main():
    """Serve until stdin is closed."""
    app = web.Application()
    app.router.add_post("/{key}/v1/chat/completions", complete)
    app.router.add_get("/ledger/{key}", ledger)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
