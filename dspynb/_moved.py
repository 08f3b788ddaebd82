"""Old paths of modules below ``dspynb``, which can be imported for one more release, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["MODULES", "NAMES", "install", "moved_name"]

MODULES = {
    "adapters.keys": "adapters.cache_keys",
    "adapters.labels": "adapters.labelled_lines",
    "adapters.loose": "adapters.lenient_json",
    "adapters.native": "adapters.native_tools",
    "adapters.prose": "adapters.text_values",
    "doctor": "contrib.doctor",
    "evaluation.combining": "evaluation.metrics.weighted_mean",
    "evaluation.comparing": "evaluation.metrics.matching",
    "evaluation.datasets": "evaluation.data_io.datasets",
    "evaluation.evaluation": "evaluation.result",
    "evaluation.feedback": "evaluation.metrics.feedback",
    "evaluation.fields": "evaluation.metrics.fields",
    "evaluation.judging": "evaluation.metrics.judge",
    "evaluation.reading": "evaluation.data_io.reading",
    "evaluation.saving": "evaluation.data_io.saving",
    "evaluation.splitting": "evaluation.data_io.splitting",
    "executors.away": "contrib.dask.job",
    "executors.base": "running.executor",
    "executors.cluster": "contrib.dask.cluster",
    "executors.dask_executor": "contrib.dask.executor",
    "executors.packing": "contrib.dask.serialization",
    "executors.worker": "contrib.dask.worker",
    "lm.base": "lm.protocol",
    "lm.direct": "lm.providers.openai_http",
    "lm.doubles": "lm.testing",
    "lm.endpoint": "lm.providers.endpoint",
    "lm.flights": "lm.interceptors.single_flight",
    "lm.litellm_engine": "lm.providers.litellm_engine",
    "lm.openai_format": "lm.providers.openai_format",
    "lm.prices": "lm.providers.prices",
    "media.telling": "media.describe",
    "modules.acting": "agents.step",
    "modules.advice": "refine.hint_sources",
    "modules.arguments": "agents.tools.arguments",
    "modules.attempts": "refine.attempt",
    "modules.call": "modules.predictor_call",
    "modules.callables": "agents.tools.callables",
    "modules.combine": "modules.module",
    "modules.comparison": "modules.multi_chain_comparison",
    "modules.demos": "state.demos",
    "modules.docstrings": "agents.tools.docstrings",
    "modules.dspy_state": "state.dspy_json",
    "modules.mcp": "agents.tools.mcp",
    "modules.migration": "contrib.migration",
    "modules.pool": "modules.ordered_pool",
    "modules.program_of_thought": "agents.program_of_thought",
    "modules.react": "agents.react",
    "modules.recording": "replaying.recording",
    "modules.refine": "refine.refine",
    "modules.replaying": "replaying.replayer",
    "modules.sandbox": "agents.sandbox",
    "modules.scoring": "modules.scorer",
    "modules.search": "refine.search",
    "modules.state": "state.state",
    "modules.state_files": "state.files",
    "modules.streaming": "modules.stream",
    "modules.tools": "agents.tools.tool",
    "modules.voting": "modules.majority",
    "optimizers.advising": "optimizers.simba.rules",
    "optimizers.asking": "optimizers.core.proposal",
    "optimizers.candidate": "optimizers.core.candidate",
    "optimizers.checks": "optimizers.core.diagnostics",
    "optimizers.demos": "optimizers.core.demos",
    "optimizers.dispatch": "optimizers.core.dispatcher",
    "optimizers.engine": "optimizers.core.engine",
    "optimizers.evolution": "optimizers.gepa.loop",
    "optimizers.grounded": "optimizers.mipro.proposer",
    "optimizers.guiding": "optimizers.core.interventions",
    "optimizers.hinting": "optimizers.distill.hints",
    "optimizers.lanes": "optimizers.gepa.virtual_time",
    "optimizers.memory": "optimizers.core.resume_log",
    "optimizers.merging": "optimizers.gepa.merge",
    "optimizers.optimizer": "optimizers.core.optimizer",
    "optimizers.pareto": "optimizers.gepa.parent_selection",
    "optimizers.racing": "optimizers.core.successive_halving",
    "optimizers.reflecting": "optimizers.gepa.reflection",
    "optimizers.standing": "optimizers.core.leaderboard",
    "optimizers.task": "optimizers.core.problem",
    "optimizers.texts": "optimizers.core.instructions",
    "optimizers.trajectories": "optimizers.simba.trajectories",
    "optimizers.validating": "optimizers.gepa.validation",
    "optimizers.variants": "optimizers.simba.mutations",
    "results.candidates": "running.tables.candidates",
    "results.diffs": "running.tables.diffs",
    "results.fold": "running.record",
    "results.hints": "running.tables.hints",
    "results.pages": "running.tables.pages",
    "results.scores": "running.tables.scores",
    "results.spans": "running.tables.spans",
    "results.statistics": "running.tables.statistics",
    "results.tables": "running.tables.frames",
    "results.trees": "running.tables.trees",
    "running.display": "running.view_hook",
    "running.files": "running.store",
    "running.looking_back": "running.call_history",
    "running.signals": "running.aio.signals",
    "running.steering": "running.control",
    "running.sync": "running.aio.sync",
    "running.tasks": "running.aio.tasks",
    "running.threads": "running.aio.threads",
    "turns": "conversation",
    "views.figures": "views.plots.figures",
    "views.notebook": "views.live.notebook",
    "views.opening": "views.attach",
    "views.progress": "views.terminal.progress",
    "views.static": "views.html.static",
    "views.state": "views.view_model",
    "views.summaries": "views.terminal.summaries",
    "views.text": "views.terminal.text",
    "views.widget": "views.live.widget",
}
"""Modules and packages by their old path."""
NAMES = {
    "executors.Executor": "running.executor",
    "executors.elsewhere": "running.executor",
    "modules.AttemptResult": "refine.attempt",
    "modules.BestOfN": "refine.best_of_n",
    "modules.Observation": "agents.tools.tool",
    "modules.ProgramOfThought": "agents.program_of_thought",
    "modules.ReAct": "agents.react",
    "modules.Refine": "refine.refine",
    "modules.Replay": "replaying.replayer",
    "modules.Tool": "agents.tools.tool",
    "modules.from_dspy": "contrib.migration.translate",
    "modules.mcp_tools": "agents.tools.mcp",
    "modules.replay": "replaying.replayer",
    "refine.search.BestOfN": "refine.best_of_n",
    "results.AttemptRow": "running.record_rows",
    "results.HintRow": "running.tables.hints",
    "results.HintUse": "running.tables.hints",
    "results.PromptDiff": "running.tables.diffs",
    "results.Span": "running.tables.spans",
    "results.attempts_frame": "running.tables.frames",
    "results.calls_frame": "running.tables.frames",
    "results.candidates_frame": "running.tables.candidates",
    "results.diff_messages": "running.tables.diffs",
    "results.hint_rows": "running.tables.hints",
    "results.hint_uses": "running.tables.hints",
    "results.hints_frame": "running.tables.hints",
    "results.hints_text": "running.tables.hints",
    "results.history_frame": "running.tables.candidates",
    "results.mapped": "running.tables.frames",
    "results.matrix_frame": "running.tables.candidates",
    "results.proposals_frame": "running.tables.candidates",
    "results.rollouts_frame": "running.tables.frames",
    "results.rollouts_of": "running.tables.frames",
    "results.spans_frame": "running.tables.spans",
    "results.spans_of": "running.tables.spans",
    "results.summary_of": "running.tables.candidates",
    "results.tree_html": "running.tables.trees",
    "results.tree_text": "running.tables.trees",
    "results.winner_of": "running.tables.candidates",
}
"""Names that a package exported, by their old path, and the module that has them now."""
_REMOVED_PACKAGES = ("results", "executors")


def moved_name(package: str, name: str) -> Any:
    """The object that a package exported under a name; for its ``__getattr__``. Raises AttributeError for a name that
    was not moved."""
    home = NAMES.get(f"{package}.{name}")
    if home is None:
        raise AttributeError(f"module 'dspynb.{package}' has no attribute {name!r}")
    _warn(f"{package}.{name}", f"{home}.{name}")
    return getattr(importlib.import_module(f"dspynb.{home}"), name)


def install(advise: Callable[[str], str]) -> None:
    """Make the old paths importable. ``advise``: what to use for a name of DSPy, as a sentence; empty for others."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
        sys.meta_path.append(_DSPyFinder(advise))


class _Finder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        root, _, old = fullname.partition(".")
        if root != "dspynb" or not old:
            return None
        if old in _REMOVED_PACKAGES:
            return ModuleSpec(fullname, _PackageLoader(old), is_package=True)
        new = _new_path(old)
        if new is None:
            return None
        return ModuleSpec(fullname, _AliasLoader(old, new))


class _DSPyFinder(MetaPathFinder):
    """Refuses imports of DSPy's names, such as ``from dspynb import InputField``, with dspynb's name for them. It is
    the last finder, so that it sees only what no other finds."""

    def __init__(self, advise: Callable[[str], str]) -> None:
        self._advise = advise

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        root, _, name = fullname.partition(".")
        if root == "dspynb" and name and "." not in name:
            advice = self._advise(name)
            if advice:
                raise ImportError(f"cannot import {fullname}. {advice}", name=fullname)
        return None


def _new_path(old: str) -> str | None:
    """The new path of a module; None for a module that was not moved."""
    head = old
    tail = ""
    while head:
        if head in MODULES:
            new = MODULES[head] + tail
            if not tail or importlib.util.find_spec(f"dspynb.{new}") is not None:
                return new
        head, dot, last = head.rpartition(".")
        tail = f"{dot}{last}{tail}"
    return None


class _AliasLoader(Loader):
    """Loads the module at its new path."""

    def __init__(self, old: str, new: str) -> None:
        self._old = old
        self._new = new
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002
        _warn(self._old, self._new)
        module = importlib.import_module(f"dspynb.{self._new}")
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import under the old path has set another


class _PackageLoader(Loader):
    """Loads a removed package, whose names are now in other modules."""

    def __init__(self, old: str) -> None:
        self._old = old

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:  # noqa: ARG002
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = lambda name: moved_name(self._old, name)  # type: ignore[method-assign]


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"dspynb.{old} is now dspynb.{new}; the next release removes the old path", DeprecationWarning, stacklevel=3
    )
