"""The embedded model: SmolLM2-135M (or any GGUF file), run inside this process without a key or a network."""

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
from dspynb.errors import BadRequestError, ConfigurationError, ContextTooLong, ModelError, nearest, shorten
from dspynb.keywords import configurable
from dspynb.lm.direct_call import DirectCalls
from dspynb.lm.download import cached_path, smollm2_path
from dspynb.lm.protocol import LMReply, LMRequest, PieceCallback, refuse_in_a_replay, refuse_media
from dspynb.options import Float, Int, PositiveInt

__all__ = ["LocalLM"]

# Without a system message, SmolLM2's chat template adds an advertisement for itself.
_NEUTRAL_SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
_SAMPLING = {"temperature", "max_tokens", "top_p", "top_k", "min_p", "seed", "stop", "repeat_penalty"}
_SETTINGS = {*_SAMPLING, "response_format"}


@dataclass(frozen=True, slots=True, repr=False)
class LocalLM(DirectCalls):
    """A small language model in this process: no key, no network after the first use, reproducible replies.

    ``path``: a GGUF file; by default SmolLM2-135M-Instruct, which is downloaded on first use into the user's cache
    folder (98 MB). Outputs of a type other than text are held to a grammar, so that they can be read (docs/models.md).
    ``seed`` (0), ``temperature`` (0: greedy) and ``max_tokens`` (256) are defaults that the settings of a request
    override. Above temperature 0, each ``rollout`` of a request is another sample, which is the same in every process.
    ``n_ctx``: tokens of context per call (4096). ``threads``: CPU threads (1). ``parallel``: calls at a time (1); above
    1, calls that run together may change each other's text.

    The model is loaded in the first call, which blocks the interpreter for about half a second. Objects with equal
    path, n_ctx, threads and parallel share one loaded model (about 300 MB).

    Raises ConfigurationError for a missing file, a value below 1, an unknown setting, or if xllamacpp is not installed;
    DownloadError if the model cannot be downloaded; ModelError if a call fails, or in a process forked after the model
    was loaded.

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
    takes_grammar: ClassVar[bool] = True
    takes_media: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.path is not None:
            _existing_file(self.path)

    @property
    def name(self) -> str:
        """``local/SmolLM2-135M-Instruct``, or ``local/`` and the file's name without its suffix."""
        return "local/SmolLM2-135M-Instruct" if self.path is None else f"local/{Path(self.path).stem}"

    async def complete(self, request: LMRequest) -> LMReply:
        """Generate a reply. Cancelling the awaiting task stops the generation.

        If the last message is the assistant's, the text of the reply is its continuation only, and ``response_format``
        applies to the continuation.
        """
        return await self._complete(request, lambda _: None)

    async def stream(self, request: LMRequest, on_piece: PieceCallback) -> LMReply:
        """Generate a reply and call ``on_piece`` on the event loop with each new piece of the text."""
        loop = asyncio.get_running_loop()

        def call_on_loop(text: str) -> None:
            loop.call_soon_threadsafe(on_piece, text)

        return await self._complete(request, call_on_loop)

    async def _complete(self, request: LMRequest, on_piece: PieceCallback) -> LMReply:
        refuse_in_a_replay(self.name)
        body = self._body(request)
        _refuse_after_fork()
        engine = self._engine()
        job = engine.submit(lambda stopped: self._run(engine, body, stopped, on_piece))
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
        settings = {name: value for name, value in request.settings.items() if value is not None}
        unknown = sorted(settings.keys() - _SETTINGS)
        if unknown:
            raise ConfigurationError(f"{self.name} has no setting {unknown[0]!r}.{nearest(unknown[0], _SETTINGS)}")
        grammar = request.grammar
        schema = request.response_format if grammar is None else None
        if "response_format" in settings:
            grammar = None
            schema = self._schema(settings.pop("response_format"))
        return {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            **settings,
            "seed": _sample_seed(settings.get("seed", self.seed), request.rollout),
            "messages": _with_system([dict(m) for m in request.messages]),
            "response_format": schema,
            "grammar": grammar,
        }

    def _schema(self, response_format: Any) -> Mapping[str, Any] | None:
        """The JSON schema of a response format in OpenAI's form; None for plain text."""
        kind = response_format.get("type") if isinstance(response_format, Mapping) else None
        json_schema = response_format.get("json_schema") if kind == "json_schema" else None
        if isinstance(json_schema, Mapping) and isinstance(json_schema.get("schema"), Mapping):
            schema: Mapping[str, Any] = json_schema["schema"]
            return schema
        if kind == "json_object":
            return {"type": "object"}
        if kind == "text":
            return None
        raise ConfigurationError(
            f"{self.name}: response_format must be {{'type': 'json_schema', 'json_schema': {{'schema': …}}}}, "
            f"{{'type': 'json_object'}} or {{'type': 'text'}}, got {shorten(repr(response_format), 100)}"
        )

    def _run(
        self, engine: _Engine, body: dict[str, Any], stopped: Callable[[], bool], on_piece: PieceCallback
    ) -> LMReply:
        """Load the model if necessary and generate a reply. Runs on a worker thread, so that the event loop stays free
        (except that xllamacpp holds the GIL while it loads)."""
        engine.load(self._model_file)
        started = time.perf_counter()
        chunks = _generate(engine, _constrained(body), stopped, on_piece)
        return _reply(chunks, time.perf_counter() - started)

    def _model_file(self) -> Path:
        return smollm2_path() if self.path is None else _existing_file(self.path)

    def __repr__(self) -> str:
        changed = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                changed.append(f"{field.name}={value!r}")
        return f"LocalLM({', '.join(changed)})"


LocalLM.__init__ = configurable(  # type: ignore[method-assign]
    renamed={
        **dict.fromkeys(("concurrency", "num_threads", "n_parallel"), "parallel"),
        **dict.fromkeys(("model", "model_path"), "path"),
        **dict.fromkeys(("context", "num_ctx"), "n_ctx"),
        "n_threads": "threads",
    }
)(LocalLM.__init__)


def _existing_file(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise ConfigurationError(f"LocalLM: there is no file {str(path)!r}; without a path, SmolLM2-135M is fetched")
    return Path(path)


def _sample_seed(seed: int, rollout: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{rollout}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1  # 31 bits: llama.cpp reads 2**32 - 1 as "any seed"


def _with_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if any(message["role"] == "system" for message in messages):
        return messages
    return [_NEUTRAL_SYSTEM, *messages]


def _constrained(body: dict[str, Any]) -> dict[str, Any]:
    """The body with its JSON schema or grammar in the form that llama.cpp takes."""
    schema = body["response_format"]
    constrained = {name: value for name, value in body.items() if name != "response_format" and value is not None}
    if schema is None:
        return constrained
    if body["messages"][-1]["role"] != "assistant":
        constrained["response_format"] = {"type": "json_schema", "json_schema": {"schema": dict(schema)}}
    else:  # a response format would have to match the prefilled text as well; a grammar matches the new text only
        constrained["grammar"] = _xllamacpp().json_schema_to_grammar(json.dumps(dict(schema)))
    return constrained


def _generate(
    engine: _Engine, body: Mapping[str, Any], stopped: Callable[[], bool], on_piece: PieceCallback
) -> list[dict[str, Any]]:
    chunks: list[dict[str, Any]] = []

    def on_chunk(chunk: dict[str, Any]) -> bool:
        chunks.append(chunk)
        text = "".join(choice["delta"].get("content") or "" for choice in chunk.get("choices", ()))
        if text:
            on_piece(text)
        return stopped()  # True ends the generation

    # Only a streamed generation can be stopped (with return_progress also within a long prompt), and does not repeat
    # the prefill.
    stream = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True, "cache_prompt": False}
    try:
        # No local variable holds the server: the traceback of an error would keep it alive after its release at exit.
        engine.server.handle_chat_completions({**body, **stream}, on_chunk)
    except (ValueError, RuntimeError) as error:
        raise BadRequestError(f"the embedded model refused the request: {error}") from error
    return chunks


def _reply(chunks: list[dict[str, Any]], seconds: float) -> LMReply:
    texts: list[str] = []
    reasoning: list[str] = []
    finish = None
    tokens: dict[str, Any] = {}
    for chunk in chunks:
        if "error" in chunk:
            raise _request_error(chunk["error"])
        for choice in chunk["choices"]:
            texts.append(choice["delta"].get("content") or "")
            reasoning.append(choice["delta"].get("reasoning_content") or "")
            finish = choice["finish_reason"] or finish
        tokens = chunk.get("usage") or tokens
    if finish is None:
        raise ModelError("the embedded model stopped before its reply was complete")
    prompt_tokens = token_count(tokens.get("prompt_tokens"))
    completion_tokens = token_count(tokens.get("completion_tokens"))
    usage = Usage(1, prompt_tokens, completion_tokens, usd=0.0, seconds=seconds)
    return LMReply("".join(texts), usage=usage, finish=finish, reasoning="".join(reasoning) or None)


def _request_error(error: Mapping[str, Any]) -> ModelError:
    problem = f"the embedded model refused the request: {error.get('message', error)}"
    if error.get("type") == "exceed_context_size_error":
        return ContextTooLong(f"{problem}; shorten the prompt or set LocalLM(n_ctx=...)")
    return BadRequestError(problem)


class _Job:
    """One call of the model. Setting ``abort`` stops it while it runs, and keeps it from running while it is queued."""

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
        except BaseException as error:  # any exception is raised by the call that awaits the reply
            self.reply.set_exception(error)

    def _stopped(self) -> bool:
        # At exit the interpreter waits for this thread, after the main thread has ended.
        return self.abort.is_set() or not threading.main_thread().is_alive()


class _Engine:
    """One loaded model and its queue of calls. At most ``parallel`` threads run, and none while there is no call."""

    def __init__(self, pid: int, file: str, n_ctx: int, threads: int, parallel: int) -> None:
        self.pid = pid
        self.load_started = False
        self._file = file
        self._n_ctx = n_ctx
        self._threads = threads
        self._parallel = parallel
        self.server: Any = None
        self._load_lock = threading.Lock()
        self._lock = threading.Lock()
        self._queue: deque[_Job] = deque()
        self._workers = 0

    def submit(self, work: Callable[[Callable[[], bool]], LMReply]) -> _Job:
        job = _Job(work)
        with self._lock:
            self._queue.append(job)
            new_worker = self._workers < self._parallel
            self._workers += new_worker
        if new_worker:
            threading.Thread(target=self._run_jobs, name="dspynb-local-lm", daemon=False).start()
        return job

    def _run_jobs(self) -> None:
        while job := self._next():
            job.run()

    def _next(self) -> _Job | None:
        with self._lock:
            if self._queue:
                return self._queue.popleft()
            self._workers -= 1
            return None

    def load(self, model_file: Callable[[], Path]) -> None:
        """Load the model, on first use, from the file that ``model_file()`` returns."""
        xllamacpp = _xllamacpp()
        with self._load_lock:
            if self.server is None:
                file = str(model_file())
                self.load_started = True
                try:
                    self.server = xllamacpp.Server(self._params(file))
                except RuntimeError as error:
                    raise ConfigurationError(f"LocalLM: cannot load {file!r} as a GGUF file ({error})") from error
                # A server that is released later, after the interpreter's shutdown began, can crash the process.
                atexit.register(self._release)

    def _release(self) -> None:
        if self.pid == os.getpid():
            self.server = None

    def _params(self, file: str) -> Any:
        params = _xllamacpp().CommonParams()
        params.model.path = file
        params.n_ctx = self._n_ctx * self._parallel
        params.n_parallel = self._parallel
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.n_batch = params.n_ubatch = 64  # a stop takes effect between batches: about 0.6 s on one slow core
        params.prefill_assistant = True
        params.warmup = False
        params.verbosity = -1
        params.fit_params = False  # True loads everything twice, and may change n_ctx if memory is short
        # Greedy text can differ between a cached and an uncached prefix; and the caches may grow to 8 GB.
        params.cache_prompt = False
        params.cache_idle_slots = False
        params.cache_ram_mib = 0
        params.n_ctx_checkpoints = 0
        # The server always opens a port: on loopback, with a random key and without a page.
        params.hostnames = ["127.0.0.1"]
        params.api_keys = [secrets.token_hex(32)]
        params.n_threads_http = 1
        params.ui = False
        params.endpoint_slots = False
        return params


def _xllamacpp() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise ConfigurationError(f'LocalLM needs xllamacpp: pip install "dspynb[local]" ({error})') from error
    return xllamacpp


# The process id is part of the key: a forked child must not use locks that another thread held during the fork.
_engines: dict[tuple[int, str, int, int, int], _Engine] = {}


def _refuse_after_fork() -> None:
    for engine in list(_engines.values()):
        if engine.load_started and engine.pid != os.getpid():
            raise ModelError(
                "the embedded model was loaded before fork() and cannot run in the child: start processes with "
                'multiprocessing.get_context("spawn"), or use LocalLM only in the children'
            )
