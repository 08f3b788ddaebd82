"""Made dspy_program.json, dspy_predict.json and dspy_react.json, with dspy 3.4.1: ``python make_dspy_states.py``."""

import datetime
from pathlib import Path

import dspy
from pydantic import BaseModel


class Source(BaseModel):
    title: str
    year: int


class Check(dspy.Signature):
    """Check the answer against the sources."""

    answer: str = dspy.InputField()
    sources: list[Source] = dspy.InputField(desc="where it was found")
    ok: bool = dspy.OutputField()
    when: datetime.date = dspy.OutputField(desc="date of the check")


class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        self.retrieve = dspy.Predict("question -> query")
        self.answer = dspy.ChainOfThought("question, context: list[str] -> answer")
        self.steps = [dspy.Predict("a -> b"), dspy.Predict("b -> c: float")]
        self.by = {"x": dspy.Predict(Check)}


folder = Path(__file__).parent
program = Program()
inner = program.answer.predict
inner.signature = inner.signature.with_instructions("Answer in one word.")
inner.demos = [
    dspy.Example(augmented=True, question="2+2?", context=["sums"], reasoning="Two and two.", answer="4"),
    dspy.Example(question="3+3?", context=[], answer="6", source_row=7).with_inputs("question", "context"),
]
source = Source(title="Sums", year=1901)
program.by["x"].demos = [dspy.Example(answer="4", sources=[source], ok=True, when=datetime.date(2024, 5, 1))]
program.steps[1].demos = [{"b": "two", "c": 2.0}]
program.retrieve.lm = dspy.LM("openai/gpt-4o-mini", api_key="no key", temperature=0.5)
program.save(folder / "dspy_program.json")

predict = dspy.Predict("question -> answer")
predict.demos = [{"question": "a", "answer": "b"}]
predict.save(folder / "dspy_predict.json")


def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


agent = dspy.ReAct("question -> answer", tools=[weather])
agent.react.signature = agent.react.signature.with_instructions("Call the tools. " + agent.react.signature.instructions)
extract = agent.extract.predict
extract.signature = extract.signature.with_instructions("Answer in one word.")
extract.demos = [{"question": "Rain?", "trajectory": "it rains", "reasoning": "It rains.", "answer": "yes"}]
agent.save(folder / "dspy_react.json")
