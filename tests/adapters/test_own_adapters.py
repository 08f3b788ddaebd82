"""Adapters of a user's own: dataclasses, attributes that change, anything that a message may depend on."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

import dspynb as dn


@dataclass
class Titled(dn.ChatAdapter):
    """Puts a title at the head of the system message."""

    title: str = "A"
    notes: list[str] = field(default_factory=list)
    repair: bool = True

    def format_system(self, signature, instruction):
        return "\n".join([self.title, *self.notes, super().format_system(signature, instruction)])

    def format_output(self, signature, outputs):
        return f"{self.title}\n{super().format_output(signature, outputs)}"


def sent(lm):
    """The system message and the demo's reply of the last request."""
    messages = lm.requests[-1].messages
    return messages[0]["content"], messages[2]["content"]


@pytest.fixture
def lm():
    return dn.ScriptedLM(["[[ ## answer ## ]]\n4"] * 5)


def ask(lm, adapter):
    program = dn.Predict("question -> answer", lm=lm, adapter=adapter, demos=[{"question": "1+1?", "answer": "2"}])
    assert program.run_sync(question="2+2?").answer == "4"
    return sent(lm)


def test_an_adapter_that_is_a_dataclass_works(lm):
    system, demo = ask(lm, Titled("Title"))
    assert system.startswith("Title\n")
    assert demo.startswith("Title\n")


def test_a_changed_attribute_is_in_the_next_request(lm):
    adapter = Titled("One")
    ask(lm, adapter)
    adapter.title = "Two"
    system, demo = ask(lm, adapter)
    assert system.startswith("Two\n")
    assert demo.startswith("Two\n")
    adapter.notes.append("Be kind.")
    assert ask(lm, adapter)[0].startswith("Two\nBe kind.\n")


def test_two_adapters_of_one_class_do_not_share_cached_texts(lm):
    assert ask(lm, Titled("One"))[0].startswith("One\n")
    assert ask(lm, Titled("Two"))[0].startswith("Two\n")


def test_an_attribute_set_on_a_built_in_adapter_does_not_affect_another(lm):
    first = dn.ChatAdapter()
    second = dn.ChatAdapter(repair=False)
    assert ask(lm, first) == ask(lm, second)
    first.repair = False
    assert ask(lm, first) == ask(lm, second)
