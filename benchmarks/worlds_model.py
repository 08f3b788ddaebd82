"""The model of the simulated worlds: it turns the messages of a request into the text of a reply, without waiting.

It recognizes a request by its content, never by its sender.

*A task call* asks for the output of one stage of the world, and nothing else. The stated rules are those in its system
message. Its demos are the turns before the last user message; the last example id in that message names the example.
Whether the answer is right is decided by `World.accuracy` and by one number, which is drawn from (seed, example, stated
hidden rules, nearest demo, number of wrong demos, facts of the previous stages, rollout). The rollout is the number of
times that this exact request was made before in the run, so a reworded prompt draws the same number again. (The text
that a stage passes on does change with the wording, as with a real model, so that no cache serves the calls after it.)

*Any other call* is a call for words: a proposal, a reflection, a summary. Each requested output field is answered:

- an instruction: it keeps the rules of the current instruction (or of the best attempt, if attempts with scores are
  shown). It adds each other rule that it sees with probability .7, drops one kept rule with .05, and invents a wrong
  rule with .1. If the prompt contains feedback, it sees the rules that the feedback names. Otherwise it sees the rules
  in data, demos and summaries, and in attempts that score at least the median. If the prompt says for which stage the
  instruction is, it adds only rules of that stage (the verb of a rule names its stage). Without feedback, it also
  guesses a hidden rule with probability .25; proposers that look at no data (COPRO) depend on that. Its wording varies,
  as that of a real model does.
- a prefix: "Answer:". A dictionary by module: advice for each module, with the visible rules of its stage.
- any other text (summary, description, observation): the visible rules of all stages, each with probability .7.

The draws depend on (seed, stage, kept rules, visible rules, requested fields), and on how often exactly this was
requested before, because a proposer that repeats a request wants a different reply.
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

ADD_PROBABILITY = 0.7
DROP_PROBABILITY = 0.05
INVENT_PROBABILITY = 0.1
GUESS_PROBABILITY = 0.25
MANNERS = re.findall(r"\w+", "calmly closely briskly plainly neatly firmly freshly gently keenly nimbly soberly")
_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")
_SCORE = re.compile(r"\bscore[^\n\d-]{0,24}?(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_FENCED = re.compile(r"following instructions.*?```\s*\n(.*?)\n```", re.DOTALL)
_OUTPUT_NAME = re.compile(
    r"`(?:\[\[ ## )?(\w+)(?: ## \]\])?`(?: \(must be (?:a JSON object|formatted as a valid Python) ?([\w\[\], ]*)\))?"
)
_TYPED = re.compile(r"^\d+\. `(\w+)` \(([\w\[\], ]+)\)", re.MULTILINE)
_LINE = re.compile(r"^(\w+): ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """The requested form of a reply: its fields, and their format (``chat``, ``json`` or one ``fenced`` text)."""

    fields: Mapping[str, str]
    """Field name → type as the prompt names it, or "str"."""
    style: str


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    kind: str
    """``task``, ``run`` (the task call of the last stage), ``words``, or ``unread`` if no form of reply was found."""
    key: str
    """The key from which the reply was drawn; the latency is drawn from it too."""


class Model:
    """Answers the requests of one run in one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.request_counts = Counter[str]()

    def replies(self, body: Mapping[str, Any]) -> list[Reply]:
        """One reply for each requested choice."""
        messages = [{"role": m["role"], "content": _text(m["content"])} for m in body["messages"]]
        form = reply_form_in(messages, body.get("response_format"))
        stage = self._stage(form)
        if stage is not None and ID.search(messages[-1]["content"]):
            return [self._task(messages, form, stage) for _ in range(body.get("n") or 1)]
        return [self._words(messages, form) for _ in range(body.get("n") or 1)]

    def _stage(self, form: ReplyForm) -> int | None:
        """The stage whose output a request asks for; None for calls for words."""
        names = [name for name in form.fields if name != "reasoning"]
        for at, stage in enumerate(self.world.stages):
            if names == [stage.output]:
                return at
        return None

    def _rollout(self, *key: object) -> str:
        text = repr(key)
        self.request_counts[text] += 1
        return f"{text}/{self.request_counts[text]}"

    # Task calls

    def _task(self, messages: Sequence[Mapping[str, str]], form: ReplyForm, at: int) -> Reply:
        world = self.world
        stage = world.stages[at]
        name = ID.findall(messages[-1]["content"])[-1]
        stated = rules_in(" ".join(m["content"] for m in messages if m["role"] == "system"))
        demos = demos_in(world, at, messages)
        previous = self._previous_facts(at, name, messages[-1]["content"])
        facts = previous + world.facts(at, stated, demos, world.examples[name])
        rollout = self._rollout(messages).rpartition("/")[2]
        near = world.nearest(demos, world.examples[name])
        own = sorted(set(stated) & set(world.rules[at]))
        key = repr((world.seed, name, at, own, near, sum(not right for _, right in demos), previous, rollout))
        draws = Draws("answer", key)
        if at + 1 < len(world.stages):
            wording = Draws("wording", messages).bits() & 0xFFFF
            text = f"{stage.output} {wording:04x} on [id:{name}] {world.code(stage.mark, name, facts)}"
        elif draws.uniform() < world.accuracy(facts):
            text = world.examples[name].truth
        else:
            text = f"unclear {world.code(stage.mark, name, facts, draws.bits())}"
        fields = {field: text if field == stage.output else "It is so." for field in form.fields}
        kind = "run" if at + 1 == len(world.stages) else "task"
        return Reply(format_reply(fields, form), kind, key)

    def _previous_facts(self, at: int, name: str, text: str) -> Facts:
        """The facts in the input from the previous stage. If there are none, all needed rules count as missed."""
        if at == 0:
            return Facts()
        mark = self.world.stages[at - 1].mark
        decoded = [self.world.read(m, name, code) for m, code in CODE.findall(text) if m == mark]
        known = [facts for facts in decoded if facts is not None]
        if known:
            return known[-1]
        return Facts(missed=(1 << len(self.world.examples[name].needs)) - 1)

    # Calls for words

    def _words(self, messages: Sequence[Mapping[str, str]], form: ReplyForm) -> Reply:
        if not form.fields:
            return Reply("I do not know what is wanted.", "unread", self._rollout("unread"))
        seen = Seen.of(self.world, messages)
        key = self._rollout(self.world.seed, seen, sorted(form.fields))
        draws = Draws("words", key)
        fields = {name: self._field(name, kind, seen, draws) for name, kind in form.fields.items()}
        return Reply(format_reply(fields, form), "words", key)

    def _field(self, name: str, kind: str, seen: Seen, draws: Draws) -> Any:
        if "prefix" in name:
            return "Answer:"
        if kind.startswith(("dict", "object")):
            return {module: self._advice(at, seen, draws) for module, at in seen.modules}
        if kind.startswith(("list", "array")):
            return [self.instruction(seen, draws) for _ in range(3)]
        if "instruction" in name or "prompt" in name:
            return self.instruction(seen, draws)
        if kind.startswith(("int", "float", "number", "bool")):
            return 1
        return self._summary(seen, draws)

    def instruction(self, seen: Seen, draws: Draws) -> str:
        world = self.world
        rules = list(seen.current_rules)
        for rule in seen.rules:
            if rule not in rules and self._fits(rule, seen.stage) and draws.uniform() < ADD_PROBABILITY:
                rules.append(rule)
        if seen.current_rules and draws.uniform() < DROP_PROBABILITY:
            rules.remove(draws.choice(seen.current_rules))
        stages = list(range(len(world.stages))) if seen.stage is None else [seen.stage]
        pool: list[str] = []
        for at in stages:
            pool += [rule for rule in world.stages[at].pool if rule not in rules]
        if draws.uniform() < INVENT_PROBABILITY:
            rules.append(draws.choice([rule for rule in pool if rule not in world.hidden]))
        if not seen.feedback and draws.uniform() < GUESS_PROBABILITY:
            rules += draws.sample([rule for rule in pool if rule in world.hidden], 1)
        task = world.stages[stages[-1]].instruction
        manner = " and ".join(draws.sample(MANNERS, 2))
        return " ".join([task, f"Work {manner}.", *rules])

    def _fits(self, rule: str, stage: int | None) -> bool:
        return stage is None or rule.startswith(self.world.stages[stage].verb)

    def _advice(self, at: int, seen: Seen, draws: Draws) -> str:
        rules = [rule for rule in seen.rules if self._fits(rule, at) and draws.uniform() < ADD_PROBABILITY]
        return " ".join(rules) or "Read with care."

    def _summary(self, seen: Seen, draws: Draws) -> str:
        new = [rule for rule in seen.rules if rule not in seen.prior and draws.uniform() < ADD_PROBABILITY]
        if seen.prior and not new:
            return "COMPLETE"
        return " ".join(["The inputs are questions about files and each answer is one word.", *new])


@dataclass(frozen=True, slots=True)
class Seen:
    """The content of a prompt for words that its reply depends on.

    Replies are drawn from the repr of this class. A change of the repr would change all results.
    """

    stage: int | None
    """The stage whose instruction is to be written, if the prompt says so."""
    current_rules: tuple[str, ...]
    """The rules of the current instruction, or of the best attempt."""
    rules: tuple[str, ...]
    """The visible rules."""
    prior: tuple[str, ...]
    """The rules of earlier observations."""
    feedback: bool
    modules: tuple[tuple[str, int], ...]
    """The modules that the prompt defines, each with its stage."""

    def __repr__(self) -> str:
        """The text as it was when the results in this folder were made, when the first rules were called ``kept``."""
        return (
            f"Seen(stage={self.stage!r}, kept={self.current_rules!r}, rules={self.rules!r}, prior={self.prior!r}, "
            f"feedback={self.feedback!r}, modules={self.modules!r})"
        )

    @classmethod
    def of(cls, world: World, messages: Sequence[Mapping[str, str]]) -> Seen:
        text = messages[-1]["content"]
        sections = sections_of(text)
        current = " ".join(section for name, section in sections.items() if is_current(name))
        attempts: list[tuple[float, str]] = []
        for name, section in sections.items():
            if not is_current(name):
                attempts += attempts_in(world, section)
        feedback = feedback_in(text)
        visible = feedback or _rules_outside_poor_attempts(text, attempts)
        best = current
        if attempts and not feedback:
            _, best = max(attempts, key=lambda attempt: attempt[0])
        stage = stage_of(world, current) if current else None
        if stage is None and attempts:
            stage = stage_of(world, " ".join(attempt for _, attempt in attempts))
        return cls(
            stage=stage,
            current_rules=tuple(sorted(rules_in(best))),
            rules=tuple(sorted(visible)),
            prior=tuple(sorted(rules_in(sections.get("prior_observations", "")))),
            feedback=bool(feedback),
            modules=modules_in(world, text),
        )


def _rules_outside_poor_attempts(text: str, attempts: Sequence[tuple[float, str]]) -> list[str]:
    """The rules in a text, except those that occur only in attempts below the median score."""
    middle = median(score for score, _ in attempts) if attempts else 0.0
    poor: set[str] = set()
    good: set[str] = set()
    for score, attempt in attempts:
        rules = poor if score < middle else good
        rules.update(rules_in(attempt))
    return [rule for rule in rules_in(text) if rule not in poor - good]


def is_current(name: str) -> bool:
    """Whether a section contains the instruction to improve."""
    return "instruction" in name and not any(part in name for part in ("attempt", "previous", "tried", "history"))


def stage_of(world: World, text: str) -> int | None:
    """The stage whose task a text states; None if it states none or several."""
    stages = [at for at, stage in enumerate(world.stages) if stage.instruction.lower() in text.lower()]
    return stages[0] if len(stages) == 1 else None


def sections_of(text: str) -> dict[str, str]:
    """The input fields of a prompt by name, also for the reflection prompt of gepa."""
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
    """The attempts in a text as (score, text). The score can be before or after an attempt."""
    scores = list(_SCORE.finditer(text))
    places = [text.lower().find(stage.instruction.lower()) for stage in world.stages]
    first = min((place for place in places if place >= 0), default=-1)
    if not scores or first < 0:
        return []
    if scores[0].start() < first:
        ends = [mark.start() for mark in scores[1:]] + [len(text)]
        return [(float(mark[1]), text[mark.end() : end]) for mark, end in zip(scores, ends, strict=True)]
    begins = [0] + [mark.end() for mark in scores[:-1]]
    return [(float(mark[1]), text[begin : mark.start()]) for mark, begin in zip(scores, begins, strict=True)]


def modules_in(world: World, text: str) -> tuple[tuple[str, int], ...]:
    """The modules that a prompt defines ("Module name … its instruction"), each with its stage."""
    parts = re.split(r"^\s*Module ([\w.\[\]']+)$", text, flags=re.MULTILINE)
    modules = [(name, stage_of(world, part)) for name, part in zip(parts[1::2], parts[2::2], strict=True)]
    return tuple((name, at) for name, at in modules if at is not None)


def demos_in(world: World, at: int, messages: Sequence[Mapping[str, str]]) -> list[list[Any]]:
    """The demos of a task call as [id, right]: the pairs of turns before the last message."""
    turns = [m for m in messages if m["role"] != "system"][:-1]
    demos: list[list[Any]] = []
    for question, reply in pairwise(turns):
        ids = ID.findall(question["content"])
        if reply["role"] == "assistant" and ids:
            demos.append([ids[-1], world.right(at, ids[-1], reply["content"])])
    return demos


def reply_form_in(messages: Sequence[Mapping[str, str]], response_format: Mapping[str, Any] | None) -> ReplyForm:
    """The form that the last message, the response format or the system message asks for."""
    last = messages[-1]["content"]
    system = next((m["content"] for m in messages if m["role"] == "system"), "")
    request = last[last.rfind("Respond with") :] if "Respond with" in last else ""
    types = dict(_TYPED.findall(system))
    fields = {
        name: kind or types.get(name, "str") for name, kind in _OUTPUT_NAME.findall(request) if name != "completed"
    }
    if fields:
        return ReplyForm(fields, "json" if "JSON object in" in request else "chat")
    schema = (response_format or {}).get("json_schema", {}).get("schema", {})
    if schema:
        return ReplyForm({name: p.get("type", "str") for name, p in schema["properties"].items()}, "json")
    match = re.search(r"Reply with one JSON object: \{(.*)\}", system)
    if match:
        return ReplyForm(dict(re.findall(r'"(\w+)": ([\w\[\], ]+?)(?=, "|$)', match[1])), "json")
    if "within ``` blocks" in last:
        return ReplyForm({"instruction": "str"}, "fenced")
    return ReplyForm({}, "")


def format_reply(fields: Mapping[str, Any], form: ReplyForm) -> str:
    """The text of a reply in the requested form."""
    if form.style == "json":
        return json.dumps(fields)
    if form.style == "fenced":
        return "```\n" + "\n".join(map(str, fields.values())) + "\n```"
    sections = []
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        sections.append(f"[[ ## {name} ## ]]\n{text}")
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
