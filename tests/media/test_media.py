"""Images and files: their sources, their place in a message, and where their data must not appear."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import pickle
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, InputError, SignatureError
from dspynb.media.describe import content_text
from dspynb.signatures import as_signature
from tests.helpers import journal

PNG = b"\x89PNG\r\n\x1a\n" + b"picture" * 2000
DATA = base64.b64encode(PNG).decode()
URL = f"data:image/png;base64,{DATA}"
LOOK = as_signature("photo: Image, question -> answer")


class Picture:
    """An image with the ``save`` method of PIL images."""

    format = None

    def save(self, stream, format):  # noqa: A002  # the name in PIL
        assert format == "PNG"
        stream.write(PNG)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "photo.png"
    file.write_bytes(PNG)
    return file


def test_an_image_comes_from_a_path_bytes_a_data_url_or_a_picture_in_memory(path):
    images = [dn.Image(path), dn.Image(str(path)), dn.Image(PNG), dn.Image(URL), dn.Image(Picture())]
    assert {i.data for i in images} == {PNG}
    assert {i.mime for i in images} == {"image/png"}
    assert {i.size for i in images} == {len(PNG)}
    assert {i.part()["image_url"]["url"] for i in images} == {URL}


def test_equality_is_by_content_and_an_image_is_a_value(path):
    image, other = dn.Image(PNG), dn.Image(URL)
    assert image == other
    assert hash(image) == hash(other)
    assert dn.Image(PNG[:-1]) != image
    assert dn.File(PNG) != image
    assert copy.deepcopy(image) is image
    assert pickle.loads(pickle.dumps(image)) == image
    with pytest.raises(AttributeError, match="immutable"):
        image.mime = "image/gif"


def test_the_provider_opens_a_url_which_is_shown_without_its_query():
    image = dn.Image("https://user:pass@host/a.jpg?sig=SECRET")
    assert (image.data, image.size, image.mime) == (None, None, "image/jpeg")
    assert image.part()["image_url"]["url"] == "https://user:pass@host/a.jpg?sig=SECRET"
    assert repr(image) == "Image(<image/jpeg, https://host/a.jpg?…>)"


def test_a_notebook_shows_an_image_as_a_picture_and_never_as_markup():
    image = dn.Image(PNG)
    assert repr(image) == f"Image(<image/png, 14.0 kB, sha256 {image.sha256[:8]}>)"
    assert image._repr_html_().startswith("<img src='data:image/png;base64,")
    drawing = dn.Image(b"<svg onload='x()'/>", mime="image/svg+xml", name="<b>.svg")
    assert "<svg" not in drawing._repr_html_()
    assert "<b>" not in drawing._repr_html_()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dn.Image("nowhere.png"), "cannot read the file"),
        (lambda: dn.Image("a\x00b.png"), "cannot read the file"),
        (lambda: dn.Image(b""), "0 bytes"),
        (lambda: dn.Image(b"text"), "pass mime="),
        (lambda: dn.Image(b"%PDF-1.7"), "use dn.File"),
        (lambda: dn.Image(b"x", mime="image/png' onload='x"), "mime is written as"),
        (lambda: dn.Image("data:image/png;base64,???"), "not valid base64"),
        (lambda: dn.Image(5), "takes a path, a URL, bytes or a PIL image, got int"),
    ],
)
def test_an_invalid_image_is_an_error(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("name", ["chat", "json", "prefill"])
def test_an_image_stands_in_the_message_where_its_field_stands(name):
    adapter = {"chat": dn.ChatAdapter(), "json": dn.JSONAdapter(), "prefill": dn.PrefillAdapter()}[name]
    label = {"chat": "[[ ## photo ## ]]\n", "json": "photo: ", "prefill": "Photo: "}[name]
    user = next(
        m for m in reversed(adapter.format(LOOK, {"photo": dn.Image(PNG), "question": "what?"})) if m["role"] == "user"
    )
    before, image, after = user["content"]
    assert before == {"type": "text", "text": label}
    assert image == {"type": "image_url", "image_url": {"url": URL}}
    assert "what?" in after["text"]
    plain = adapter.format(as_signature("question -> answer"), {"question": "what?"})
    assert all(isinstance(m["content"], str) for m in plain)


def test_lists_options_files_and_demos_hold_media_too(path):
    class Read(dn.Signature):
        """Read."""

        pages: list[dn.Image] = dn.Input()
        paper: dn.File | None = dn.Input(default=None)
        answer: str = dn.Output()

    lm = dn.ScriptedLM(["[[ ## answer ## ]]\nx"] * 2)
    demo = {"pages": [dn.Image(PNG)], "answer": "y"}
    predict = dn.Predict(Read, lm=lm, demos=[demo])
    paper = dn.File(b"%PDF-1.7", name="a.pdf")
    predict.run_sync(pages=[dn.Image(PNG), dn.Image("https://host/a.png")], paper=paper)
    _, first, _, last = lm.requests[0].messages
    assert [p["type"] for p in first["content"]] == ["text", "image_url", "text"]
    assert [p["type"] for p in last["content"]] == ["text", "image_url", "image_url", "text", "file", "text"]
    assert last["content"][4]["file"] == {
        "filename": "a.pdf",
        "file_data": "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.7").decode(),
    }
    predict.run_sync(pages=[dn.Image(PNG)])
    assert "paper" not in content_text(lm.requests[1].messages[-1]["content"])


def test_a_text_never_chooses_which_file_is_read(path):
    predict = dn.Predict(LOOK, lm=dn.ScriptedLM([]))
    with pytest.raises(InputError, match=r"write dn.Image\(path\)"):
        predict.run_sync(photo=str(path), question="x")
    assert LOOK.check_inputs({"photo": Path(path), "question": "x"}, "p")["photo"].data == PNG
    assert LOOK.check_inputs({"photo": URL, "question": "x"}, "p")["photo"].data == PNG


@pytest.mark.parametrize("kind", [dn.Image, list[dn.File], dn.History])
def test_media_and_histories_are_inputs_and_never_outputs(kind):
    with pytest.raises(SignatureError, match="cannot be an output"):
        type("S", (dn.Signature,), {"__annotations__": {"a": kind}, "a": dn.Output()})


def test_histories_deep_inside_a_value_are_refused_where_the_signature_is_written():
    with pytest.raises(SignatureError, match="stands alone or with None"):
        as_signature("a: list[History] -> b")


def test_a_model_that_takes_text_only_refuses_before_anything_is_sent(tmp_path):
    requests = []
    lm = dn.FunctionLM(requests.append, name="plain")
    lm.takes_media = False
    for model, name in ((lm, "plain"), (dn.LocalLM(), "local/SmolLM2")):
        with pytest.raises(ConfigurationError, match=f"{name}.* takes text only"):
            dn.Predict(LOOK, lm=model).run_sync(photo=dn.Image(PNG), question="x")
    request = dn.LMRequest(messages=({"role": "user", "content": [dn.Image(PNG).part()]},))
    with pytest.raises(ConfigurationError, match="takes text only"):
        asyncio.run(dn.LocalLM().complete(request))
    assert requests == []


def test_no_journal_history_view_or_recording_holds_the_data(tmp_path):
    path = tmp_path / "replies.jsonl"
    lm = dn.recorded(path, lm=dn.ScriptedLM(["[[ ## answer ## ]]\nx"] * 3))
    refine = dn.Refine(dn.Predict(LOOK, lm=lm), reward=lambda row, p: 0.5, n=2, hints=lambda *a: "look")
    prediction = refine.run_sync(photo=dn.Image(PNG), question="x")
    description = dn.Image(PNG).description
    run = prediction.run
    texts = [journal(run), path.read_text(), repr(prediction.calls), prediction.calls._repr_html_()]
    texts += [str(run.diff(1, 2)), run.diff(1, 2)._repr_html_(), repr(dn.history(1)), run.calls.to_json()]
    for text in texts:
        assert DATA[:60] not in text
    assert description in repr(prediction.calls)
    assert description in json.loads(path.read_text().splitlines()[0])["messages"][1]["content"][1]["image_url"]["url"]
    assert description in journal(run)


def test_a_data_url_among_the_inputs_is_shortened_in_a_journal_too():
    lm = dn.ScriptedLM(["[[ ## answer ## ]]\nx"])
    program = dn.Refine(dn.Predict("link -> answer", lm=lm), reward=lambda row, p: 1.0, n=1)
    text = journal(program.run_sync(link=URL).run)
    started = next(line for line in text.splitlines() if '"RunStarted"' in line)
    assert DATA[:60] not in started
