"""The embedded model: SmolLM2-135M (or any GGUF file) run inside this process, without a key or a network."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from dspynb.data import Usage, token_count
from dspynb.errors import BadRequestError, ConfigurationError, ContextTooLong, ModelError, nearest
from dspynb.keywords import configurable
from dspynb.lm.download import cached_path, smollm2_path
from dspynb.lm.protocol import Heard, LMReply, LMRequest, refuse_in_a_replay, refuse_media
from dspynb.options import Float, Int, PositiveInt

__all__ = ["LocalLM"]

# SmolLM2's chat template puts its own advertisement there when there is no system message.
_NEUTRAL_SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
_SETTINGS = {"temperature", "max_tokens", "top_p", "top_k", "min_p", "seed", "stop", "repeat_penalty"}


@dataclass(frozen=True, slots=True, repr=False)
class LocalLM:
    """A small language model in this process: no key, no network after the first use, the same answer every time.

    Without ``path``: SmolLM2-135M-Instruct, fetched on first use into the user's cache folder (98 MB). ``seed``,
    ``temperature`` (0: greedy) and ``max_tokens`` are defaults that a request's settings override; above 0, each
    ``rollout`` of a request is another sample, the same one every time. ``n_ctx``: tokens of context a call.
    ``threads``: CPU threads. ``parallel``: calls at a time; above 1, neighbours may change a text. Nothing is loaded
    before the first call, which holds the interpreter for about half a second; equal path, n_ctx, threads and
    parallel share one loaded model (about 300 MB).

    Raises ConfigurationError for a missing file, a value below 1, an unknown setting, or without xllamacpp;
    DownloadError if the model cannot be fetched; ModelError if a call fails, or after a fork.

    >>> lm = dn.LocalLM(temperature=0.7, max_tokens=40)
    >>> lm, lm.name
    (LocalLM(temperature=0.7, max_tokens=40), 'local/SmolLM2-135M-Instruct')
    """

    path: str | Path | None = None
    _: KW_ONLY
    seed: Int = 0
    temperature: Float = 0.0
    max_tokens: PositiveInt = 256
    n_ctx: PositiveInt = 4096
    threads: PositiveInt = 1
    parallel: PositiveInt = 1

    adapter: ClassVar[str] = "prefill"
    constrains: ClassVar[bool] = True
    takes_media: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.path is not None:
            _existing(self.path)

    @property
    def name(self) -> str:
        """``local/SmolLM2-135M-Instruct``, or ``local/`` and the file's name without its ending."""
        return "local/SmolLM2-135M-Instruct" if self.path is None else f"local/{Path(self.path).stem}"

    async def complete(self, request: LMRequest) -> LMReply:
        """One reply. If the last message is the assistant's, the reply's text is its continuation only.

        ``response_format`` then holds for the continuation. Cancelling the awaiting task stops the generation.
        """
        return await self._complete(request, lambda _: None)

    async def stream(self, request: LMRequest, heard: Heard) -> LMReply:
        """The same, with each new piece of the text told to ``heard``."""
        loop = asyncio.get_running_loop()

        def told(text: str) -> None:
            loop.call_soon_threadsafe(heard, text)

        return await self._complete(request, told)

    async def _complete(self, request: LMRequest, heard: Heard) -> LMReply:
        refuse_in_a_replay(self.name)
        body = self._body(request)
        _refuse_after_fork()
        engine = self._engine()
        job = engine.submit(lambda stopped: self._run(engine, body, stopped, heard))
        try:
            return await asyncio.wrap_future(job.reply)
        finally:
            job.abort.set()

    def _engine(self) -> _Engine:
        file = str(Path(self.path or cached_path()).resolve())
        key = (os.getpid(), file, self.n_ctx, self.threads, self.parallel)
        return _engines.setdefault(key, _Engine(*key))

    def _body(self, request: LMRequest) -> dict[str, Any]:
        if request.tools:
            raise ConfigurationError(f"{self.name} does not call tools: describe them in the prompt instead")
        refuse_media(self, request.messages)
        settings = {k: v for k, v in request.settings.items() if v is not None}
        if unknown := sorted(settings.keys() - _SETTINGS):
            raise ConfigurationError(f"{self.name} has no setting {unknown[0]!r}.{nearest(unknown[0], _SETTINGS)}")
        return {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            **settings,
            "seed": _sample_seed(settings.get("seed", self.seed), request.rollout),
            "messages": _with_system([dict(m) for m in request.messages]),
            "response_format": request.response_format,
        }

    def _run(self, engine: _Engine, body: dict[str, Any], stopped: Callable[[], bool], heard: Heard) -> LMReply:
        # On the worker thread: the event loop stays free, except that xllamacpp keeps the GIL while it loads.
        path = self.path
        engine.loaded(smollm2_path if path is None else lambda: _existing(path))
        started = time.perf_counter()
        chunks = _generate(engine, _constrained(body), stopped, heard)
        return _reply(chunks, time.perf_counter() - started)

    def __repr__(self) -> str:
        changed = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default)
        return f"LocalLM({', '.join(changed)})"


LocalLM.__init__ = configurable(  # type: ignore[method-assign]
    renamed={
        **dict.fromkeys(("concurrency", "num_threads", "n_parallel"), "parallel"),
        **dict.fromkeys(("model", "model_path"), "path"),
        **dict.fromkeys(("context", "num_ctx"), "n_ctx"),
        "n_threads": "threads",
    }
)(LocalLM.__init__)


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise ConfigurationError(f"LocalLM: there is no file {str(path)!r}; without a path, SmolLM2-135M is fetched")
    return Path(path)


def _sample_seed(seed: int, rollout: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{rollout}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1  # 31 bits: llama.cpp reads 2**32 - 1 as "any seed"


def _with_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return messages if any(m["role"] == "system" for m in messages) else [_NEUTRAL_SYSTEM, *messages]


def _constrained(body: dict[str, Any]) -> dict[str, Any]:
    schema = body["response_format"]
    rest = {k: v for k, v in body.items() if k != "response_format"}
    if schema is None:
        return rest
    if body["messages"][-1]["role"] != "assistant":
        return {**rest, "response_format": {"type": "json_schema", "json_schema": {"schema": dict(schema)}}}
    # A response format must match the prefilled text too, which is no JSON; a grammar only what is generated.
    return {**rest, "grammar": _xllamacpp().json_schema_to_grammar(json.dumps(dict(schema)))}


def _generate(
    engine: _Engine, body: Mapping[str, Any], stopped: Callable[[], bool], heard: Heard
) -> list[dict[str, Any]]:
    chunks: list[dict[str, Any]] = []

    def on_chunk(chunk: dict[str, Any]) -> bool:
        chunks.append(chunk)
        if text := "".join(choice["delta"].get("content") or "" for choice in chunk.get("choices", ())):
            heard(text)
        return stopped()  # True ends the generation

    # Streamed, to be stoppable (with progress: within a long prompt too), and since only then a prefill is not echoed.
    stream = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True, "cache_prompt": False}
    try:
        # Kept in no local variable: an error's traceback would hold the server beyond its release at exit.
        engine.server.handle_chat_completions({**body, **stream}, on_chunk)
    except (ValueError, RuntimeError) as error:
        raise BadRequestError(f"the embedded model refused the request: {error}") from error
    return chunks


def _reply(chunks: list[dict[str, Any]], seconds: float) -> LMReply:
    texts: list[str] = []
    finish, tokens = None, dict[str, Any]()
    for chunk in chunks:
        if "error" in chunk:
            raise _refused(chunk["error"])
        for choice in chunk["choices"]:
            texts.append(choice["delta"].get("content") or "")
            finish = choice["finish_reason"] or finish
        tokens = chunk.get("usage") or tokens
    if finish is None:
        raise ModelError("the embedded model stopped before its reply was complete")
    prompt, completion = token_count(tokens.get("prompt_tokens")), token_count(tokens.get("completion_tokens"))
    usage = Usage(1, prompt, completion, usd=0.0, seconds=seconds)
    return LMReply("".join(texts), usage=usage, finish=finish)


def _refused(error: Mapping[str, Any]) -> ModelError:
    told = f"the embedded model refused the request: {error.get('message', error)}"
    if error.get("type") == "exceed_context_size_error":
        return ContextTooLong(f"{told}; shorten the prompt or set LocalLM(n_ctx=...)")
    return BadRequestError(told)


class _Job:
    """A call that waits or runs. Cancelled while it waits, it never runs; ``abort`` stops it while it runs."""

    def __init__(self, work: Callable[[Callable[[], bool]], LMReply]) -> None:
        self.reply: Future[LMReply] = Future()
        self.abort = threading.Event()
        self._work = work

    def run(self) -> None:
        if self._stopped():
            self.reply.cancel()
        if not self.reply.set_running_or_notify_cancel():
            return
        try:
            self.reply.set_result(self._work(self._stopped))
        except BaseException as error:  # whatever it was, it belongs to the one who waits
            self.reply.set_exception(error)

    def _stopped(self) -> bool:
        # The interpreter waits for our threads at its end: the main thread has ended by then, and so must they.
        return self.abort.is_set() or not threading.main_thread().is_alive()


class _Engine:
    """One model in memory, and its queue of calls. Threads exist only while there are calls, ``parallel`` at most."""

    def __init__(self, pid: int, file: str, n_ctx: int, threads: int, parallel: int) -> None:
        self.pid, self.begun = pid, False
        self._file, self._n_ctx, self._threads, self._parallel = file, n_ctx, threads, parallel
        self.server: Any = None
        self._loading = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._workers = 0

    def submit(self, work: Callable[[Callable[[], bool]], LMReply]) -> _Job:
        job = _Job(work)
        with self._lock:
            self._waiting.append(job)
            start = self._workers < self._parallel
            self._workers += start
        if start:
            threading.Thread(target=self._drain, name="dspynb-local-lm", daemon=False).start()
        return job

    def _drain(self) -> None:
        while job := self._next():
            job.run()

    def _next(self) -> _Job | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._workers -= 1
            return None

    def loaded(self, find: Callable[[], Path]) -> None:
        """See that there is a server, made on first use from the file that ``find`` returns."""
        xllamacpp = _xllamacpp()
        with self._loading:
            if self.server is None:
                file = str(find())
                self.begun = True
                try:
                    self.server = xllamacpp.Server(self._params(file))
                except RuntimeError as error:
                    raise ConfigurationError(f"LocalLM: cannot load {file!r} as a GGUF file ({error})") from error
                # While the interpreter still stands: ended later, together with its threads, it can crash the process.
                atexit.register(self._release)

    def _release(self) -> None:
        if self.pid == os.getpid():
            self.server = None

    def _params(self, file: str) -> Any:
        params = _xllamacpp().CommonParams()
        params.model.path = file
        params.n_ctx, params.n_parallel = self._n_ctx * self._parallel, self._parallel
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.n_batch = params.n_ubatch = 64  # a stop takes effect between batches: about 0.6 s on one slow core
        params.prefill_assistant, params.warmup, params.verbosity = True, False, -1
        params.fit_params = False  # it loads everything twice, and may change n_ctx where memory is short
        # Greedy text can differ between a cached and an uncached prefix; and the caches may grow to 8 GB.
        params.cache_prompt, params.cache_idle_slots = False, False
        params.cache_ram_mib, params.n_ctx_checkpoints = 0, 0
        # The server opens a port in any case: on loopback, with a key nobody knows and nothing to see.
        params.hostnames, params.api_keys, params.n_threads_http = ["127.0.0.1"], [secrets.token_hex(32)], 1
        params.ui, params.endpoint_slots = False, False
        return params


def _xllamacpp() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise ConfigurationError(f'LocalLM needs xllamacpp: pip install "dspynb[local]" ({error})') from error
    return xllamacpp


# By process too: a forked child must not touch locks that were held when it was made.
_engines: dict[tuple[int, str, int, int, int], _Engine] = {}


def _refuse_after_fork() -> None:
    for engine in list(_engines.values()):
        if engine.begun and engine.pid != os.getpid():
            raise ModelError(
                "the embedded model was loaded before fork() and cannot run in the child: start processes with "
                'multiprocessing.get_context("spawn"), or use LocalLM only in the children'
            )
