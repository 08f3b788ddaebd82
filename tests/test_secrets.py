"""Keys in the environment, the model, a header and the server's replies appear in no file and no output."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import json
import logging
import pickle
import traceback
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

import dspynb as dn
from dspynb.errors import ModelError
from dspynb.redact import holds_known, keep_secret, redact, redact_known, redact_values
from dspynb.running.journal import flush_journals
from dspynb.views.html.static import static_html
from tests.helpers import Caption, chat
from tests.lm.server import Server, error, sse

ENVIRONMENT, GIVEN, HEADER = "env-0123456789-abc", 'giv"en\\0123456789é', "head-0123456789-xyz"
PLANTED = (ENVIRONMENT, GIVEN, HEADER)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A model with keys, and a server that repeats everything it receives, in a temporary folder."""
    monkeypatch.setenv("PLANTED_API_KEY", ENVIRONMENT)
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("dspynb.redact._known", (-9.0, frozenset()))  # the environment is read once a second

    def answer(body, number):
        sent = " ".join([ENVIRONMENT, GIVEN, server.headers[-1].get("X-Planted", "")])
        if number == 2:
            return error(400, f"cannot take {sent}")
        return chat(sentence=f"said {number} {sent}", reason=sent)

    with Server(answer) as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key=GIVEN, extra_headers={"X-Planted": HEADER}, retries=0)
        with dn.context(cache=True, runs_dir=str(tmp_path / "runs"), lm=lm):
            yield server, lm, tmp_path


def found_in(text):
    """The planted keys in a text, plain or as JSON writes them."""
    return [key for key in PLANTED if key in text or json.dumps(key)[1:-1] in text]


def test_the_keys_were_sent_where_they_belong(world):
    server, _, _ = world
    dn.Predict(Caption).run_sync(subject="x")
    assert server.headers[0]["X-Planted"] == HEADER
    assert HEADER not in json.dumps(server.bodies)
    assert server.headers[0]["Authorization"].encode("latin-1", "ignore").startswith(b"Bearer giv")


def test_no_output_contains_a_planted_key(world, caplog, capsys):
    _, lm, folder = world
    caplog.set_level(logging.DEBUG)
    outputs = []

    def reward(row, prediction):
        if "1" in prediction.sentence.split():
            raise ValueError(f"the reward saw {ENVIRONMENT} and {GIVEN}")
        return dn.Score(0.1, feedback=f"not with {prediction.sentence}")

    refine = dn.Refine(dn.Predict(Caption), reward, n=4, hints="feedback")
    recorded = dn.recorded(folder / "replies.jsonl", lm=lm)

    async def main():
        with dn.trace() as trace:
            prediction = await refine(subject=f"a prompt with {ENVIRONMENT}")
        recording = await dn.Predict(Caption, lm=recorded)(subject=f"with {GIVEN}")
        rows = await dn.Predict(Caption).batch([{"subject": f"{i}"} for i in range(3)])
        return trace, prediction, recording, rows

    trace, prediction, recording, rows = asyncio.run(main())
    run = prediction.run
    outputs += [repr(prediction), prediction._repr_html_(), repr(recording), repr(rows)]
    outputs += [run.attempts.to_string(), run.calls.to_string(), trace.table().to_string()]
    outputs.append(run.diff(1, 3)._repr_html_())
    outputs += [repr(dn.history(20)), dn.history(20)._repr_html_(), static_html(run.record)]
    outputs.append(str(run.attempts.to_dict()))
    outputs += [
        repr(lm),
        repr(vars(lm)["_engine"]),
        repr(refine),
        str(pickle.dumps(lm)),
        str(pickle.dumps(dn.Predict(Caption, lm=lm))),
    ]
    flush_journals()
    outputs += [dn.open_run(run.path).attempts.to_string(), caplog.text, "".join(capsys.readouterr())]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".jsonl", ".sqlite"}
    outputs += [path.read_bytes().decode("utf-8", "replace") for path in files]
    assert [found_in(text) for text in outputs] == [[]] * len(outputs)
    assert any("***" in text for text in outputs)


def test_neither_an_error_nor_its_traceback_contains_a_planted_key(world):
    predict = dn.Predict(Caption)
    predict.run_sync(subject="first")
    with pytest.raises(ModelError, match="cannot take") as caught:
        predict.run_sync(subject="second")
    assert found_in("".join(traceback.format_exception(caught.value))) == []


def test_errors_show_no_text_that_looks_like_a_key():
    assert redact("no sk-abcdefghijklmnop1234 and https://me:pass@host") == "no *** and https***host"


def test_short_values_and_plain_words_are_not_redacted(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "the")
    monkeypatch.setattr("dspynb.redact._known", (-9.0, frozenset()))
    assert redact_known("the other") == "the other"


def test_two_models_of_one_name_send_each_its_own_key():
    with Server(lambda body, number: chat(sentence="s")) as server:
        models = [dn.LM("openai/m", api_base=server.base, api_key=f"key-number-{i}-long") for i in range(2)]

        async def main():
            await asyncio.gather(*(dn.Predict(Caption, lm=lm)(subject="x") for lm in models for _ in range(5)))

        asyncio.run(main())
    sent = [headers["Authorization"] for headers in server.headers]
    assert sorted(set(sent)) == ["Bearer key-number-0-long", "Bearer key-number-1-long"]
    assert sent.count("Bearer key-number-0-long") == 5


def test_outputs_of_any_model_or_program_are_shown_without_a_planted_key(world):
    class Leaks(dn.Module):
        def __init__(self):
            self.predict = dn.Predict("history: History, question -> answer", lm=dn.FunctionLM(lambda r: said))

        async def forward(self, question):
            past = dn.History([{"question": GIVEN, "answer": ENVIRONMENT}])
            await self.predict(history=past, question=question)
            return {"answer": f"the key is {ENVIRONMENT}"}

    said = chat(answer=f"my key is {GIVEN}")
    refine = dn.Refine(Leaks(), lambda row, p: dn.Score(0.0, feedback=f"avoid {ENVIRONMENT}"), n=2)
    with dn.trace() as trace:
        prediction = refine.run_sync(question="q")
    rows = asyncio.run(dn.evaluate(Leaks(), [{"question": "q"}], lambda row, p: dn.Score(1.0, feedback=GIVEN)))
    run = prediction.run
    tables = [run.attempts, run.calls, trace.table(), rows.table]
    outputs = [repr(prediction), prediction._repr_html_(), repr(trace), trace._repr_html_(), static_html(run.record)]
    outputs += [*(str(table.to_dict()) for table in tables), repr(prediction.calls), repr(dn.history(9))]
    assert [found_in(text) for text in outputs] == [[]] * len(outputs)
    assert prediction.answer == f"the key is {ENVIRONMENT}"  # values inside the program are not redacted


def test_a_planted_key_that_comes_in_pieces_is_not_streamed(world):
    server, lm, _ = world
    pieces = [
        "[[ ## sentence ## ]]\nit is ",
        ENVIRONMENT[:9],
        ENVIRONMENT[9:],
        f" or {GIVEN[:6]}",
        "\n[[ ## completed ## ]]",
    ]
    server.streamed = [sse(pieces)]

    async def main():
        return [part async for part in dn.Predict(Caption, lm=lm).stream(subject="x")]

    *parts, prediction = asyncio.run(main())
    assert [ENVIRONMENT[:5] in part.text for part in parts] == [False] * len(parts)
    assert "".join(part.delta for part in parts).strip() == prediction.sentence == f"it is *** or {GIVEN[:6]}"


# ── forms in which secrets are given and come back ────────────────────────────────────────────────────────────────────
USER, PASSWORD, TOKEN, NESTED, QUERY = (
    "someone",
    "p@ss/w:rd-0123",
    "tok-0123456789-zzz",
    "nest-0123456789",
    "quer-0123456789",
)
PAIR = f"{USER}:{PASSWORD}"
FORMS = {
    "a bearer token alone": TOKEN,
    "the whole header": f"Bearer {TOKEN}",
    "the password": PASSWORD,
    "the password in an address": quote(PASSWORD, safe=""),
    "the pair": PAIR,
    "the pair in an address": f"{USER}:{quote(PASSWORD, safe='')}",
    "basic authentication": base64.b64encode(PAIR.encode()).decode(),
    "nested in the body": NESTED,
    "in a query": QUERY,
}


@pytest.fixture
def forms(tmp_path, monkeypatch):
    """A model with secrets in its settings, and a server that repeats them in every spelling."""
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "cache"))
    echo = " | ".join(FORMS.values())

    def answer(body, number):
        return error(400, f"cannot take {echo}") if number == 2 else chat(sentence=f"said {echo}", reason=echo)

    with Server(answer) as server:
        base = server.base.replace("://", f"://{USER}:{quote(PASSWORD, safe='')}@")
        lm = dn.LM(
            "openai/m",
            api_base=server.base,
            extra_headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
            extra_body={"deep": [{"api_key": NESTED}]},
            retries=0,
        )
        others = dn.LM("openai/a", api_base=base), dn.LM("openai/b", api_base=f"{server.base}?api-key={QUERY}")
        with dn.context(cache=True, runs_dir=str(tmp_path / "runs")):
            yield lm, others, tmp_path, echo


def test_no_output_contains_a_secret_setting_in_any_spelling(forms, caplog):
    lm, others, folder, echo = forms
    model = dn.FunctionLM(lambda request: chat(sentence=f"said {echo}"))

    async def main():
        refine = dn.Refine(dn.Predict(Caption, lm=model), lambda r, p: dn.Score(0.1, feedback=echo), n=2)
        with dn.trace() as trace:
            prediction = await refine(subject=f"with {echo}")
        with contextlib.suppress(ModelError):
            await dn.Predict(Caption, lm=dn.recorded(folder / "replies.jsonl", lm=lm))(subject="x")
        table = (await dn.evaluate(dn.Predict(Caption, lm=model), [{"subject": echo}], lambda r, p: 1.0)).table
        return trace, prediction, table

    trace, prediction, table = asyncio.run(main())
    trace.save(folder / "trace.jsonl")
    predict = dn.Predict(Caption, lm=lm)
    predict.demos = [{"subject": echo, "sentence": echo}]
    predict.save(folder / "program.json")
    flush_journals()
    outputs = {
        "prediction": repr(prediction),
        "run": static_html(prediction.run.record),
        "calls": prediction.run.calls.to_string() + str(prediction.run.attempts.to_dict()),
        "trace": repr(trace) + trace.table().to_string(),
        "table": str(table.to_dict()),
        "history": repr(dn.history(9)),
        "pickles": "".join(pickle.dumps(model).decode("latin-1") for model in (lm, others[0])),
        "models": repr(lm) + repr(others) + repr(vars(lm)["_engine"]),
        "log": caplog.text,
    }
    files = [path for path in folder.rglob("*") if path.is_file()]
    outputs |= {str(path): path.read_bytes().decode("utf-8", "replace") for path in files}
    leaks = [(place, form) for place, text in outputs.items() for form, secret in FORMS.items() if secret in text]
    assert leaks == []
    assert redact_known("application/json") == "application/json"


def test_secrets_of_addresses_are_known_but_not_the_addresses():
    with_password("https://reader:pass-0123456789@models.example.org/v1")
    assert redact_known("https://models.example.org/v1 of reader") == "https://models.example.org/v1 of reader"
    assert redact_known("pass-0123456789") == "***"


def with_password(address):
    return dn.LM("openai/m", api_base=address)


VALUE = "s3cr3t-0123456789"
HOLDS = [
    "AWS_SECRET_ACCESS_KEY", "AZURE_OPENAI_KEY", "LANGFUSE_SECRET_KEY", "PGPASSWORD", "MYSQL_PWD", "DB_PASSWD",
    "GOOGLE_CREDENTIALS", "HF_TOKEN", "HF_TOKEN_2", "API_KEY_BACKUP", "MYAPIKEY", "OPENAI_API_KEYS", "GITHUB_PAT",
    "SSH_PASSPHRASE", "NPM_AUTH", "DJANGO_SECRET", "db_password", "DB_PASS", "KEY",
]  # fmt: skip
HOLDS_NONE = [
    "POSTGRES_HOST_AUTH_METHOD", "COOKIE_DOMAIN", "AUTH_BACKEND", "TOKEN_ISSUER", "JWT_AUTH_ENABLED",
    "KEYBOARD_LAYOUT", "TOKENIZERS_PARALLELISM", "XDG_SESSION_ID", "SSH_AUTH_SOCK", "SSL_KEY_FILE", "PATH", "PWD",
    "PASSWORD_STORE_DIR", "MAX_TOKENS", "MONKEY", "AUTHOR", "TOKEN_URL", "AWS_ACCESS_KEY_ID", "COMPASS_HOME", "OLDPWD",
]  # fmt: skip


@pytest.mark.parametrize("name", HOLDS)
def test_variables_named_like_secrets_are_known(monkeypatch, name):
    monkeypatch.setenv(name, VALUE + "\n")
    monkeypatch.setattr("dspynb.redact._known", (-9.0, frozenset()))
    assert redact_known(f"it is {VALUE}.") == "it is ***."


@pytest.mark.parametrize("name", HOLDS_NONE)
def test_variables_that_only_sound_like_secrets_are_not(monkeypatch, name):
    monkeypatch.setenv(name, VALUE)
    monkeypatch.setattr("dspynb.redact._known", (-9.0, frozenset()))
    assert redact_known(VALUE) == VALUE


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("DATABASE_URL", "postgres://someone:pass-0123456@db/x", "pass-0123456"),
        ("HTTPS_PROXY", "http://someone:pass-%400123456@proxy:8080", "pass-@0123456"),
        ("SENTRY_DSN", "https://0123456789abcdef0123@sentry.example.org/1", "0123456789abcdef0123"),
        ("STORAGE", "AccountName=x;AccountKey=abcd0123456789==;Suffix=y", "abcd0123456789=="),
        (
            "GOOGLE_CREDENTIALS_JSON_KEY",
            '{"private_key": "-----BEGIN-----\\nabcdefgh0123456789\\n"}',
            "abcdefgh0123456789",
        ),
        ("API_KEYS", "key-0123456789,key-9876543210", "key-9876543210"),
    ],
)
def test_secrets_inside_the_values_of_variables_are_known(monkeypatch, name, value, secret):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("dspynb.redact._known", (-9.0, frozenset()))
    assert secret not in redact_known(f"<{secret}>")
    assert redact_known("someone at db") == "someone at db"


def test_a_variable_that_names_a_file_is_no_secret(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    monkeypatch.setattr("dspynb.redact._known", (-9.0, frozenset()))
    assert redact_known(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("secret", ['qu"o\\te-0123456789é', "a b&c<d>'e-0123456789", "sl/as+h=%-0123456789"])
@pytest.mark.parametrize(
    "form",
    [str, repr, ascii, json.dumps, lambda s: json.dumps(json.dumps(s)), quote, lambda s: quote(s, safe=""), quote_plus,
     html.escape, lambda s: quote(s, safe="").lower() if s.islower() else quote(s)],
)  # fmt: skip
def test_a_secret_is_known_as_python_json_addresses_and_pages_write_it(secret, form):
    keep_secret(secret)
    text = f"before {form(secret)} after"
    assert "0123456789" not in redact_known(text)
    assert holds_known(text.encode())


def test_a_key_as_a_name_of_a_column_or_of_a_dict_is_redacted(world, tmp_path):
    program = dn.Predict("subject -> sentence", lm=dn.FunctionLM(lambda request: chat(sentence="s")))
    rows = [{"subject": "x", ENVIRONMENT: 1, f"{ENVIRONMENT}{ENVIRONMENT}": 2}]
    evaluation = dn.Evaluate(lambda row, p: dn.Score(1.0, parts={ENVIRONMENT: 1.0})).run_sync(program, rows)
    deep = redact_values({"a": [{ENVIRONMENT: 1, (1, 2): {f"x{ENVIRONMENT}": [ENVIRONMENT]}}]})
    assert deep == {"a": [{"***": 1, (1, 2): {"x***": ["***"]}}]}
    assert len(redact_values({ENVIRONMENT: 1, GIVEN: 2})) == 2
    evaluation.save(tmp_path / "table.csv")
    flush_journals()
    outputs = [str(evaluation.table.to_dict()), evaluation.run.rollouts.to_string(), repr(dn.Example(rows[0]))]
    outputs += [dn.Prediction({ENVIRONMENT: 1})._repr_html_(), (tmp_path / "table.csv").read_text()]
    outputs += [Path(evaluation.run.path).read_text(), static_html(evaluation.run.record)]
    assert [found_in(text) for text in outputs] == [[]] * len(outputs)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [200, 400])
def test_a_request_id_that_repeats_a_key_is_redacted(world, status, stream):
    def answer(*_):
        return error(status, "no", **{"x-request-id": f"req-{ENVIRONMENT}"})  # with status 200: no reply

    request = dn.LMRequest(({"role": "user", "content": "hi"},))
    with Server(answer, streamed=[answer]) as server:
        lm = dn.LM("openai/m", api_base=server.base, retries=0)
        call = lm.stream(request, lambda text: None) if stream else lm.complete(request)
        with pytest.raises(ModelError) as caught:
            asyncio.run(call)
    assert (caught.value.request_id, found_in(str(caught.value))) == ("req-***", [])


def test_settings_with_secrets_are_not_pickled_and_others_are(forms):
    _, (lm, _), _, _ = forms
    restored = pickle.loads(pickle.dumps(dn.LM("openai/m", api_key="key-0123456789", max_tokens=9, extra_body={
        "deep": [{"api_key": NESTED, "chat_template_kwargs": {"thinking": False}}]})))  # fmt: skip
    extra_body = {"deep": [{"chat_template_kwargs": {"thinking": False}}]}
    assert restored.settings == {"max_tokens": 9, "extra_body": extra_body}
    assert "@" not in pickle.loads(pickle.dumps(lm))._endpoint_settings["api_base"]


def test_names_in_a_schema_are_no_secrets():
    schema = {"properties": {"key": {"description": "the key of a map"}, "password": {"type": "string-of-text"}}}
    dn.LM("openai/m", api_key="key-0123456789", response_format=schema)
    assert redact_known("the key of a map string-of-text") == "the key of a map string-of-text"


@pytest.mark.parametrize(
    "setting_it",
    [
        lambda key: dn.LM("openai/gpt-4.1-mini", temperature=key),
        lambda key: dn.LM("openai/gpt-4.1-mini", retries=key),
        lambda key: dn.Predict("question -> answer", max_tokens=key),
        lambda key: dn.Refine(dn.Predict("question -> answer"), lambda row, prediction: 1.0, n=key),
        lambda key: dn.GEPA(lambda row, prediction: 1.0, max_steps=key),
        lambda key: dn.configure(history=key),
        lambda key: dn.configure(lm=key),
    ],
)
def test_a_key_that_was_passed_as_another_setting_is_not_in_the_error(setting_it):
    key = "sk-proj-0123456789abcdefghijklmnopqrstuvwxyz"
    with pytest.raises(dn.errors.ConfigurationError) as raised:
        setting_it(key)
    assert "0123456789" not in str(raised.value)
    assert "***" in str(raised.value)
