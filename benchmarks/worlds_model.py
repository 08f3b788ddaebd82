"""The model of the simulated worlds: from the messages of a request to the text of a reply, without any waiting.

It knows a request by what is in it, never by who sent it.

*A task call* asks for the output of one stage of the world, and nothing else. The rules stated are those in its system
message; its demos are the turns before the last user message, whose last example id tells the example. Whether the
answer is right is decided by `World.accuracy` and one number drawn from (seed, example, the hidden rules stated, the
nearest demo, the count of wrong demos and what the stages before handed on, rollout). The rollout is the number of
times this very request was asked before in the run, so a reworded prompt draws the same number again. (What a stage
hands on is worded anew by a reworded prompt, as with a real model, so that no cache serves the calls after it.)

*Any other call* is one for words: a proposal, a reflection, a summary. Each wanted output field is answered:

- an instruction: it keeps the rules of the current instruction (of the best of the attempts where attempts with
  scores are shown), adds each other rule it sees with .7, drops one that it kept with .05, invents a wrong one with
  .1. Where the prompt holds feedback, it sees the rules that feedback names; else those in data, demos and summaries,
  and in attempts that score at least the median. It adds rules of the stage whose instruction it writes (rules tell
  their stage by their verb) if the prompt tells which that is. Without feedback it also hits on a hidden rule by
  itself with .25: proposers that look at no data (COPRO) live on that. Its wording varies, as a model's does.
- a prefix: "Answer:"; a dictionary by module: advice for each, the rules seen of that stage;
- any other text (summary, description, observation): the rules seen, each with .7, of all stages.

What is drawn depends on (seed, stage, rules kept, rules seen, what is wanted) and on how often just that was asked
before: proposers that ask the same again mean to get something else.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from worlds import CODE, ID, Draws, Facts, World, feedback_in, rules_in

ADDED, DROPPED, INVENTED, GUESSED = 0.7, 0.05, 0.1, 0.25
MANNERS = re.findall(r"\w+", "calmly closely briskly plainly neatly firmly freshly gently keenly nimbly soberly")
_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")
_SCORE = re.compile(r"\bscore[^\n\d-]{0,24}?(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_FENCED = re.compile(r"following instructions.*?```\s*\n(.*?)\n```", re.DOTALL)
_ASKED = re.compile(
    r"`(?:\[\[ ## )?(\w+)(?: ## \]\])?`(?: \(must be (?:a JSON object|formatted as a valid Python) ?([\w\[\], ]*)\))?"
)
_TYPED = re.compile(r"^\d+\. `(\w+)` \(([\w\[\], ]+)\)", re.MULTILINE)
_LINE = re.compile(r"^(\w+): ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The form of a reply: its fields, and how they are written (``chat``, ``json`` or one ``fenced`` text)."""

    fields: Mapping[str, str]
    """Field to its type, as far as the prompt says; "str" otherwise."""
    form: str


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    kind: str
    """``task``, ``run`` (the task call of the last stage), ``words`` or ``unread`` (no form of reply was found)."""
    key: str
    """What the reply was drawn from; the latency is drawn from it too."""


class Model:
    """Answers the requests of one run in one world."""

    def __init__(self, world: World) -> None:
        self.world, self.asked = world, Counter[str]()

    def replies(self, body: Mapping[str, Any]) -> list[Reply]:
        """One reply for each choice asked for."""
        messages = [{"role": m["role"], "content": _text(m["content"])} for m in body["messages"]]
        wanted = wanted_in(messages, body.get("response_format"))
        stage = self._stage(wanted)
        if stage is not None and ID.search(messages[-1]["content"]):
            return [self._task(messages, wanted, stage) for _ in range(body.get("n") or 1)]
        return [self._words(messages, wanted) for _ in range(body.get("n") or 1)]

    def _stage(self, wanted: Wanted) -> int | None:
        names = [name for name in wanted.fields if name != "reasoning"]
        return next((i for i, stage in enumerate(self.world.stages) if names == [stage.output]), None)

    def _rollout(self, *key: object) -> str:
        told = repr(key)
        self.asked[told] += 1
        return f"{told}/{self.asked[told]}"

    # Task calls

    def _task(self, messages: Sequence[Mapping[str, str]], wanted: Wanted, at: int) -> Reply:
        world, stage = self.world, self.world.stages[at]
        name = ID.findall(messages[-1]["content"])[-1]
        stated = rules_in(" ".join(m["content"] for m in messages if m["role"] == "system"))
        demos = demos_in(world, at, messages)
        before = self._before(at, name, messages[-1]["content"])
        facts = before + world.facts(at, stated, demos, world.examples[name])
        rollout = self._rollout(messages).rpartition("/")[2]
        near = world.nearest(demos, world.examples[name])
        own = sorted(set(stated) & set(world.rules[at]))
        key = repr((world.seed, name, at, own, near, sum(not right for _, right in demos), before, rollout))
        draws = Draws("answer", key)
        if at + 1 < len(world.stages):
            wording = Draws("wording", messages).bits() & 0xFFFF
            text = f"{stage.output} {wording:04x} on [id:{name}] {world.code(stage.mark, name, facts)}"
        elif draws.uniform() < world.accuracy(facts):
            text = world.examples[name].truth
        else:
            text = f"unclear {world.code(stage.mark, name, facts, draws.bits())}"
        fields = {field: text if field == stage.output else "It is so." for field in wanted.fields}
        return Reply(written(fields, wanted), "run" if at + 1 == len(world.stages) else "task", key)

    def _before(self, at: int, name: str, given: str) -> Facts:
        """What the stage before handed on; all is missed where that is not in the input."""
        if at == 0:
            return Facts()
        mark = self.world.stages[at - 1].mark
        read = [self.world.read(m, name, code) for m, code in CODE.findall(given) if m == mark]
        known = [facts for facts in read if facts is not None]
        return known[-1] if known else Facts(missed=(1 << len(self.world.examples[name].needs)) - 1)

    # Calls for words

    def _words(self, messages: Sequence[Mapping[str, str]], wanted: Wanted) -> Reply:
        if not wanted.fields:
            return Reply("I do not know what is wanted.", "unread", self._rollout("unread"))
        seen = Seen.of(self.world, messages)
        key = self._rollout(self.world.seed, seen, sorted(wanted.fields))
        draws = Draws("words", key)
        fields = {name: self._field(name, form, seen, draws) for name, form in wanted.fields.items()}
        return Reply(written(fields, wanted), "words", key)

    def _field(self, name: str, form: str, seen: Seen, draws: Draws) -> Any:
        if "prefix" in name:
            return "Answer:"
        if form.startswith(("dict", "object")):
            return {module: self._advice(at, seen, draws) for module, at in seen.modules}
        if form.startswith(("list", "array")):
            return [self.instruction(seen, draws) for _ in range(3)]
        if "instruction" in name or "prompt" in name:
            return self.instruction(seen, draws)
        if form.startswith(("int", "float", "number", "bool")):
            return 1
        return self._summary(seen, draws)

    def instruction(self, seen: Seen, draws: Draws) -> str:
        world, told = self.world, list(seen.kept)
        told += [r for r in seen.rules if r not in told and self._fits(r, seen.stage) and draws.uniform() < ADDED]
        if seen.kept and draws.uniform() < DROPPED:
            told.remove(draws.choice(seen.kept))
        stages = range(len(world.stages)) if seen.stage is None else [seen.stage]
        pool = [rule for at in stages for rule in world.stages[at].pool if rule not in told]
        if draws.uniform() < INVENTED:
            told.append(draws.choice([rule for rule in pool if rule not in world.hidden]))
        if not seen.feedback and draws.uniform() < GUESSED:
            told += draws.sample([rule for rule in pool if rule in world.hidden], 1)
        task = world.stages[stages[-1]].instruction
        manner = " and ".join(draws.sample(MANNERS, 2))
        return " ".join([task, f"Work {manner}.", *told])

    def _fits(self, rule: str, stage: int | None) -> bool:
        return stage is None or rule.startswith(self.world.stages[stage].verb)

    def _advice(self, at: int, seen: Seen, draws: Draws) -> str:
        told = [rule for rule in seen.rules if self._fits(rule, at) and draws.uniform() < ADDED]
        return " ".join(told) or "Read with care."

    def _summary(self, seen: Seen, draws: Draws) -> str:
        new = [rule for rule in seen.rules if rule not in seen.prior and draws.uniform() < ADDED]
        if seen.prior and not new:
            return "COMPLETE"
        return " ".join(["The inputs are questions about files and each answer is one word.", *new])


@dataclass(frozen=True, slots=True)
class Seen:
    """What a prompt for words holds that matters."""

    stage: int | None
    kept: tuple[str, ...]
    rules: tuple[str, ...]
    prior: tuple[str, ...]
    feedback: bool
    modules: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, world: World, messages: Sequence[Mapping[str, str]]) -> Seen:
        sections = sections_of(messages[-1]["content"])
        current = " ".join(text for name, text in sections.items() if is_current(name))
        tried = [pair for name, text in sections.items() if not is_current(name) for pair in attempts_in(world, text)]
        feedback = feedback_in(messages[-1]["content"])
        middle = median(score for score, _ in tried) if tried else 0.0
        poor = {rule for score, text in tried if score < middle for rule in rules_in(text)}
        good = {rule for score, text in tried if score >= middle for rule in rules_in(text)}
        everything = [rule for rule in rules_in(messages[-1]["content"]) if rule not in poor - good]
        best = max(tried, key=lambda pair: pair[0])[1] if tried and not feedback else current
        stage = stage_of(world, current) if current else None
        return cls(
            stage=stage_of(world, " ".join(text for _, text in tried)) if stage is None and tried else stage,
            kept=tuple(sorted(rules_in(best))),
            rules=tuple(sorted(feedback or everything)),
            prior=tuple(sorted(rules_in(sections.get("prior_observations", "")))),
            feedback=bool(feedback),
            modules=modules_in(world, messages[-1]["content"]),
        )


def is_current(name: str) -> bool:
    """Whether a section holds the instruction to better."""
    return "instruction" in name and not any(part in name for part in ("attempt", "previous", "tried", "history"))


def stage_of(world: World, text: str) -> int | None:
    """The stage whose task a text states, if it is one."""
    found = [i for i, stage in enumerate(world.stages) if stage.instruction.lower() in text.lower()]
    return found[0] if len(found) == 1 else None


def sections_of(text: str) -> dict[str, str]:
    """The input fields of a prompt by name; those of gepa's own reflection prompt likewise."""
    fenced = _FENCED.search(text)
    if fenced:
        return {"current_instruction": fenced[1], "examples": text[fenced.end() :]}
    for marker in (_FIELD, _LINE):
        marks = list(marker.finditer(text))
        if marks:
            ends = [mark.start() for mark in marks[1:]] + [len(text)]
            return {mark[1]: text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)}
    return {"": text}


def attempts_in(world: World, text: str) -> list[tuple[float, str]]:
    """Attempts with their scores, score before or after, in a text that shows instructions of the world."""
    scores = list(_SCORE.finditer(text))
    first = min((at for s in world.stages if (at := text.lower().find(s.instruction.lower())) >= 0), default=-1)
    if not scores or first < 0:
        return []
    if scores[0].start() < first:
        ends = [mark.start() for mark in scores[1:]] + [len(text)]
        return [(float(mark[1]), text[mark.end() : end]) for mark, end in zip(scores, ends, strict=True)]
    begins = [0] + [mark.end() for mark in scores[:-1]]
    return [(float(mark[1]), text[begin : mark.start()]) for mark, begin in zip(scores, begins, strict=True)]


def modules_in(world: World, text: str) -> tuple[tuple[str, int], ...]:
    """The modules that a prompt defines ("Module name … its instruction"), with the stage of each."""
    parts = re.split(r"^\s*Module ([\w.\[\]']+)$", text, flags=re.MULTILINE)
    told = [(name, stage_of(world, part)) for name, part in zip(parts[1::2], parts[2::2], strict=True)]
    return tuple((name, at) for name, at in told if at is not None)


def demos_in(world: World, at: int, messages: Sequence[Mapping[str, str]]) -> list[list[Any]]:
    """The demos of a task call: pairs of turns before the last message."""
    turns = [m for m in messages if m["role"] != "system"][:-1]
    pairs = [(a["content"], b["content"]) for a, b in pairwise(turns) if b["role"] == "assistant"]
    known = [(ids[-1], reply) for given, reply in pairs if (ids := ID.findall(given))]
    return [[name, world.right(at, name, reply)] for name, reply in known]


def wanted_in(messages: Sequence[Mapping[str, str]], response_format: Mapping[str, Any] | None) -> Wanted:
    """The output fields that the last message, the response format or the system message asks for."""
    last = messages[-1]["content"]
    asked = last[last.rfind("Respond with") :] if "Respond with" in last else ""
    typed = dict(_TYPED.findall(next((m["content"] for m in messages if m["role"] == "system"), "")))
    fields = {name: kind or typed.get(name, "str") for name, kind in _ASKED.findall(asked) if name != "completed"}
    if fields:
        return Wanted(fields, "json" if "JSON object in" in asked else "chat")
    schema = (response_format or {}).get("json_schema", {}).get("schema", {})
    if schema:
        return Wanted({name: p.get("type", "str") for name, p in schema["properties"].items()}, "json")
    system = next((m["content"] for m in messages if m["role"] == "system"), "")
    told = re.search(r"Reply with one JSON object: \{(.*)\}", system)
    if told:
        return Wanted(dict(re.findall(r'"(\w+)": ([\w\[\], ]+?)(?=, "|$)', told[1])), "json")
    return Wanted({"instruction": "str"}, "fenced") if "within ``` blocks" in last else Wanted({}, "")


def written(fields: Mapping[str, Any], wanted: Wanted) -> str:
    """The reply in the wanted form."""
    if wanted.form == "json":
        return json.dumps(fields)
    if wanted.form == "fenced":
        return "```\n" + "\n".join(map(str, fields.values())) + "\n```"
    told = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    return "\n\n".join([*(f"[[ ## {n} ## ]]\n{text}" for n, text in told.items()), "[[ ## completed ## ]]"])


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
