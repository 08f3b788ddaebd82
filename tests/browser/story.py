"""Imported by the notebooks of the browser tests: programs whose model is a function, a reward, and an optimizer."""

import asyncio

import dspynb as dn
from dspynb.optimizers.gepa.gepa import GEPA


class Caption(dn.Signature):
    """Write one sentence about the subject."""

    subject: str = dn.Input()
    sentence: str = dn.Output(desc="one sentence")


SENTENCES = [
    "The ocean is a very large body of salt water that covers most of the surface of the whole Earth.",
    "The ocean is a large body of salt water that never rests.",
    '<img src=x onerror="window.pwned=1"> The ocean rests.',
    "The blue ocean never rests, and nor do the tides that pull at it.",
    "The blue ocean never rests.",
]


def reply(sentence):
    return f"[[ ## sentence ## ]]\n{sentence}\n\n[[ ## completed ## ]]"


def writer(pace, fail=-1, endless=False):
    """A model that improves with each sample. ``endless``: it never reaches the threshold."""

    async def model(request):
        await asyncio.sleep(pace)
        if fail == request.rollout:
            return "I would rather not."
        return reply(SENTENCES[request.rollout % 4 if endless else min(request.rollout, 4)])

    return dn.FunctionLM(model)


def echo(pace):
    """A model whose sentence is the last line of its instruction."""

    async def model(request):
        await asyncio.sleep(pace)
        return reply("heard: " + str(request.messages[0]["content"]).strip().splitlines()[-1])

    return dn.FunctionLM(model)


def reward(row, prediction):
    words = len(prediction.sentence.split())
    missing = [] if words < 10 else [f"Use fewer than 10 words; you used {words}."]
    missing += [] if "blue" in prediction.sentence else ["Use the word 'blue'."]
    return dn.Score(1 - 0.5 * len(missing), feedback=" ".join(missing) or "Good.")


def refine(pace=0.5, n=5, fail=-1, lm=None):
    program = dn.Predict(Caption, lm=lm or writer(pace, fail, endless=n > 5))
    return dn.Refine(program, reward, n=n, threshold=1.0 if lm is None else 2.0)


NAMES = ["ocean", "sea", "sky", "lake", "river", "cloud", "whale", "ship", "moon", "star", "wind", "rain"]
SUBJECTS = [{"subject": name} for name in NAMES]


def optimizer(pace=0.05, steps=400):
    """A GEPA whose reflection proposes a new number of words each time."""
    proposals = [0]

    async def reflect(request):
        await asyncio.sleep(pace)
        proposals[0] += 1
        return f"[[ ## new_instruction ## ]]\nWrite {proposals[0]} words.\n\n[[ ## completed ## ]]"

    return GEPA(
        lambda row, prediction: dn.Score(0.5 * ("blue" in prediction.sentence), feedback="Use the word 'blue'."),
        prompt_lm=dn.FunctionLM(reflect), budget=dn.Budget(metric_calls=steps),
    )  # fmt: skip


def hostile(text):
    """A program that has this text in its outputs, errors, feedback and hints."""

    def model(request):
        if request.rollout == 1:
            raise dn.errors.ServerError(text)
        return reply(text)

    judge = lambda row, prediction: dn.Score(0.1 * len(prediction.sentence) % 1, feedback=text)  # noqa: E731
    return dn.Refine(dn.Predict(Caption, lm=dn.FunctionLM(model)), judge, n=3, hints=lambda *_: text)


class Thinker:
    """A model that thinks before its sentence, word by word; every call is streamed."""

    name = "thinker"
    streaming = True

    def __init__(self, pace):
        self.pace = pace

    async def complete(self, request):
        return await self.stream(request, lambda piece: None)

    async def stream(self, request, on_piece):
        sentence = SENTENCES[min(request.rollout, 4)]
        thinking = "<think>The ocean is wide. <img src=x onerror='window.pwned=1'> I need few words."
        text = ""
        for piece in [*thinking.split(" "), "And blue.</think>", reply(sentence)]:
            await asyncio.sleep(self.pace)
            on_piece(f"{piece} ")
            text += f"{piece} "
        return dn.LMReply(text, usage=dn.Usage(calls=1, reasoning_tokens=12))
