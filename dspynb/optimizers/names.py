"""Names of DSPy's settings that differ here: the name to use, or what to do where there is no such setting."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["COMPILE_OF_DSPY", "OPTIMIZER_OF_DSPY"]

_RECORDED = "leave it out: every run is recorded, with its candidates and scores (see dn.last_run() and dn.open_run)"
_BUDGET = "use a budget instead: budget=dn.Budget(metric_calls=…)"
_FAILED = "a row that failed gets the score failure_score=, and the run ends with an error where every row fails"
_ROWS = "the rows are arguments of compile: await optimizer.compile(program, train, val=…)"
_PROPOSER = "instructions are always proposed from the program and the rows, so leave it out"
_TASK_MODEL = "the program has its model: dn.Predict(…, lm=…), or `with dn.context(lm=…)`"
_OWN_PROPOSER = "to propose in another way, write a subclass of dn.Optimizer"
_NO_COUNTERPART = "it has no counterpart here, so leave it out"

OPTIMIZER_OF_DSPY: Mapping[str, str] = {
    **dict.fromkeys(("num_threads", "max_workers"), "concurrency"),
    **dict.fromkeys(("prompt_model", "reflection_lm", "proposer_lm", "prompt_llm"), "prompt_lm"),
    **dict.fromkeys(("max_metric_calls", "max_full_evals", "max_rollouts"), _BUDGET),
    **dict.fromkeys(
        ("track_stats", "track_best_outputs", "log_dir", "run_dir", "use_wandb", "wandb_api_key", "wandb_init_kwargs"),
        _RECORDED,
    ),
    **dict.fromkeys(("use_mlflow", "verbose", "callbacks", "display_progress"), _RECORDED),
    **dict.fromkeys(("max_errors", "provide_traceback"), _FAILED),
    **dict.fromkeys(("trainset", "valset", "train", "val", "devset"), _ROWS),
    **dict.fromkeys(("bsize", "reflection_minibatch_size", "batch_size"), "minibatch_size"),
    **dict.fromkeys(("use_merge", "max_merge_invocations"), "max_merges"),
    **dict.fromkeys(("program_aware_proposer", "data_aware_proposer"), _PROPOSER),
    **dict.fromkeys(("tip_aware_proposer", "fewshot_aware_proposer"), _PROPOSER),
    **dict.fromkeys(("instruction_proposer", "code_proposer", "gepa_kwargs"), _OWN_PROPOSER),
    **dict.fromkeys(("candidate_selection_strategy", "warn_on_score_mismatch"), _NO_COUNTERPART),
    **dict.fromkeys(("add_format_failure_as_feedback", "requires_permission_to_run"), _NO_COUNTERPART),
    **dict.fromkeys(("demo_input_field_maxlen", "stop_at_score", "restrict"), _NO_COUNTERPART),
    **dict.fromkeys(("lm", "task_model", "task_lm"), _TASK_MODEL),
    "component_selector": "components",
    "skip_perfect_score": "perfect_score",
    "num_candidate_programs": "num_candidates",
    "minibatch_full_eval_steps": "full_eval_steps",
    "view_data_batch_size": "shown_rows",
    "teacher_settings": "teacher_lm",
    "teacher_model": "teacher_lm",
    "labeled_sample": _NO_COUNTERPART,
    "eval_kwargs": "its settings are keywords of the optimizer, such as concurrency= and failure_score=",
}
"""Keyword of a constructor in DSPy → name here, or advice for the error message."""

_OF_CONSTRUCTOR = "pass it to the constructor of the optimizer, not to compile"
COMPILE_OF_DSPY: Mapping[str, str] = {
    **OPTIMIZER_OF_DSPY,
    **dict.fromkeys(
        (
            "auto",
            "budget",
            "concurrency",
            "failure_score",
            "max_bootstrapped_demos",
            "max_labeled_demos",
            "metric",
            "minibatch",
            "minibatch_full_eval_steps",
            "minibatch_size",
            "num_candidates",
            "num_threads",
            "num_trials",
            "prompt_lm",
            "seed",
            "teacher",
            "view_data_batch_size",
        ),
        _OF_CONSTRUCTOR,
    ),
    "student": "program",
    "module": "program",
    "trainset": "train",
    "valset": "val",
    "devset": "val",
    "testset": "test",
}
"""Keyword of DSPy's compile → name here, or advice for the error message; for compile, compile_sync, start and
resume."""
