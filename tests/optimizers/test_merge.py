"""Merging two lineages: the changes of both since a common ancestor."""

from __future__ import annotations

import asyncio

import dspynb as dn
from dspynb.optimizers.gepa.merge import merge_parts, next_merge
from dspynb.scope import Part
from tests.helpers import chat
from tests.optimizers.worlds import VAL, World, planned, three


def halves(row, prediction):
    """A metric: the first half of the rows needs the changed plan, the second half the changed answer."""
    said = prediction.answer
    return dn.Score(float(("P" in said) if int(row.question) < 14 else ("A" in said)), "Change plan and answer.")


def model():
    """A model whose outputs name the instructions in its prompt."""

    def answer(request):
        system, user = request.messages[0]["content"], request.messages[-1]["content"]
        letters = "P" if "plan better" in system or "P" in user.split("plan")[-1].split("Respond")[0] else ""
        letters += "A" if "answer better" in system else ""
        name = next(n for n in ("plan", "draft", "answer") if f"Respond with `[[ ## {n}" in user)
        return chat(**{name: letters or "-"})

    return dn.FunctionLM(answer)


def grown(engine, parent, path, text, step):
    parts = {**parent.parts, path: Part(instruction=text)}
    return engine.candidate(parts, origin="reflection", step=step, parents=[parent])


async def pool_of(engine, *candidates):
    for candidate in (engine.start, *candidates):
        await engine.evaluate(candidate)
    return {c: engine.scores(c) for c in (engine.start, *candidates)}


def searched(search):
    world = World()
    world.lm = model()
    return planned(search, world, program=three, metric=halves)


def test_a_merge_has_what_each_of_two_lineages_changed():
    async def search(engine):
        plan = grown(engine, engine.start, "plan", "plan better", 1)
        answer = grown(engine, engine.start, "answer", "answer better", 2)
        pool, done = await pool_of(engine, plan, answer), set()
        merge = next_merge(engine, pool, done, 3)
        assert {path: part.instruction for path, part in merge.child.parts.items()} == {
            "plan": "plan better",
            "answer": "answer better",
        }
        assert set(merge.child.parents) == {plan.id, answer.id}
        assert len(merge.rows) == 5
        assert merge.required_score == max(sum(engine.scores(c)[row] for row in merge.rows) for c in (plan, answer))
        assert next_merge(engine, pool, done, 4) is None  # tried before

    searched(search)


def test_lineages_without_a_common_ancestor_are_not_merged():
    async def search(engine):
        plan = grown(engine, engine.start, "plan", "plan better", 1)
        both = grown(engine, plan, "answer", "answer better", 2)  # of the same lineage
        assert next_merge(engine, await pool_of(engine, plan, both), set(), 3) is None
        orphan = engine.candidate({"answer": Part(instruction="answer better, too")}, origin="reflection", step=1)
        assert next_merge(engine, await pool_of(engine, plan, orphan), set(), 3) is None

    searched(search)


def test_lineages_are_merged_also_over_an_ancestor_that_is_not_in_the_pool():
    async def search(engine):
        root = grown(engine, engine.start, "steps[0]", "draft it", 1)  # dropped by a person, or never accepted
        plan = grown(engine, root, "plan", "plan better", 2)
        answer = grown(engine, root, "answer", "answer better", 3)
        merge = next_merge(engine, await pool_of(engine, plan, answer), set(), 4)
        assert {path: part.instruction for path, part in merge.child.parts.items()} == {
            "plan": "plan better",
            "steps[0]": "draft it",
            "answer": "answer better",
        }

    searched(search)


def test_dropping_the_common_ancestor_of_two_lineages_does_not_end_the_run():
    async def main():
        world = World()
        world.lm = model()

        async def slowly(request):  # so that requests meanwhile come in time
            await asyncio.sleep(0.02)
            return chat(new_instruction=f"no better {request.rollout}")

        optimizer = dn.GEPA(halves, minibatch_size=6, in_flight=1, max_steps=12, prompt_lm=dn.FunctionLM(slowly))
        run = optimizer.start(three(world), [{"question": str(i), "answer": ""} for i in (10, 11, 15, 16)], VAL)
        run.propose({"steps[0]": "draft it"})
        dropped = False
        async for _ in run.events():
            table = run.candidates
            root = table[(table.origin == "person") & (table.n == len(VAL))]
            if not dropped and len(root):
                dropped = True
                for path in ("plan", "answer"):
                    run.propose({path: f"{path} better"}, parent=root.id.iloc[0])
                run.drop(root.id.iloc[0])
        await run
        return run

    run = asyncio.run(main())
    assert run.status == "finished"
    assert run.candidates.set_index("origin").loc["merge"].score == 1.0


def test_where_both_lineages_changed_a_predictor_the_better_ones_text_is_used():
    async def search(engine):
        first = grown(engine, engine.start, "plan", "plan better", 1)
        second = grown(engine, engine.start, "plan", "plan otherwise", 2)
        parts = merge_parts(engine, engine.start, first, second)
        assert parts["plan"].instruction == "plan better"

    searched(search)


def test_gepa_merges_lineages_of_a_program_of_several_predictors():
    instructions = iter(["plan better", "draft it", "answer better", *(f"no better {i}" for i in range(50))])

    def reflecting(request):
        return chat(new_instruction=next(instructions))

    async def main():
        optimizer = dn.GEPA(
            halves, minibatch_size=6, in_flight=3, confirm=0, budget=dn.Budget(metric_calls=120),
            prompt_lm=dn.FunctionLM(reflecting),
        )  # fmt: skip
        world = World()
        world.lm = model()
        rows = [{"question": str(i), "answer": ""} for i in (10, 11, 12, 14, 15, 16)]
        run = optimizer.start(three(world), rows, VAL)
        await run
        return run

    run = asyncio.run(main())
    table = run.candidates.set_index("origin")
    assert {"plan better", "answer better"} <= set(table.loc["merge"].instructions.values())
    assert len(table.loc["merge"].parents) == 2
    assert table.loc["merge"].score == 1.0
    assert table.loc["merge"].best
