"""Every public name of DSPy 3.4.1, with dspynb's name for it or the reason why there is none.

docs/migration.md has this table too, and errors for these names take their text from it. ``python -m tests.dspy_names``
writes the table of the page.
"""

from __future__ import annotations

__all__ = ["DSPY_NAMES", "advice_on"]

_ADAPTER = "write an adapter, which is one class (docs/extending.md)"
_ENV = "a field takes text, an Image or a File"
_INTERPRETER = "ProgramOfThought runs code in its own sandbox; there are no separate interpreters"
_WEIGHTS = "dspynb does not train weights"
_RETRIEVER = "call your own retriever in forward"
_OPTIMIZER = "use GEPA or MIPROv2"
_INSIDE = "an internal part of DSPy"
_LOGGING = "use Python's logging; dspynb shows runs as views"
_STREAM = "Predict.stream streams a predictor, and run.events() the events of a run"
_MCP = "an agent's tools are functions or dn.Tool; calls and results are in the trajectory"
_DECISIONS = "experimental in DSPy; use Literal, float or bool outputs"
_COMPOSE = "run programs with asyncio.gather, or program.batch(rows)"
_PICKLE = "a folder or pickle runs code when it is loaded; create the program and use program.load(path)"
_TRAINING = f"{_WEIGHTS}; use a library for training"
_ERRORS = "`errors` has one class per kind of failure"

DSPY_NAMES: dict[str, tuple[str | None, str]] = {
    # programs
    "BestOfN": ("BestOfN", "`n=`, `reward=`, `max_failures=`"),
    "ChainOfThought": ("ChainOfThought", "`reasoning=` in place of `rationale_field=`"),
    "CodeAct": (None, "use ReAct with tools, or ProgramOfThought"),
    "Flex": (None, "experimental in DSPy; write a Module"),
    "KNN": (None, _RETRIEVER),
    "MultiChainComparison": ("MultiChainComparison", "`m=`; it samples the completions itself, if none are passed"),
    "Parallel": (None, _COMPOSE),
    "Predict": ("Predict", "calls are awaited"),
    "ProgramOfThought": ("ProgramOfThought", "`run_code=True`"),
    "RLM": (None, "use ProgramOfThought, or an agent with a tool that reads the text"),
    "ReAct": ("ReAct", "`max_iterations=`"),
    "ReActV2": ("ReAct", "native tool calls with `native_tools=True`"),
    "Refine": ("Refine", "`n=`, `reward=`, `max_failures=`"),
    "majority": ("majority", ""),
    "Tool": ("Tool", "`dn.mcp_tools` for tools of an MCP server"),
    "BaseModule": ("Module", ""),
    "Module": ("Module", "`async def forward`"),
    "Completions": ("Prediction", "`prediction.completions`, a list of predictions"),
    "Example": ("Example", "immutable"),
    "Prediction": ("Prediction", "immutable"),
    # signatures
    "InputField": ("Input", "`alias=` in place of `prefix=`"),
    "OutputField": ("Output", "`alias=` in place of `prefix=`"),
    "OldField": (None, "removed in DSPy's own future; use dn.Input and dn.Output"),
    "OldInputField": ("Input", ""),
    "OldOutputField": ("Output", ""),
    "Signature": ("Signature", ""),
    "SignatureMeta": (None, _INSIDE),
    "ensure_signature": (None, "dn.Predict and the other modules take a string or a class"),
    "make_signature": ("Signature", "write a class, or a string"),
    "infer_prefix": (None, "fields have an `alias`"),
    # adapters and types of fields
    "Adapter": (None, _ADAPTER),
    "ChatAdapter": ("ChatAdapter", ""),
    "JSONAdapter": ("JSONAdapter", ""),
    "TwoStepAdapter": (None, _ADAPTER),
    "XMLAdapter": (None, _ADAPTER),
    "BAMLAdapter": (None, _ADAPTER),
    "Audio": (None, _ENV),
    "Code": (None, "a field of type str"),
    "File": ("File", "an input"),
    "History": ("History", "an input"),
    "Image": ("Image", "an input"),
    "Reasoning": ("Reasoning", "an augmentation; native thinking is `reasoning` of the reply"),
    "ToolCallResults": (None, _MCP),
    "ToolCalls": (None, _MCP),
    "Type": (None, "use a pydantic model"),
    "Citations": (None, _ENV),
    "Document": (None, _ENV),
    "Choice": (None, _DECISIONS),
    "Noul": (None, _DECISIONS),
    "Score": ("Score", "another thing: the result of a metric, with feedback; DSPy's is a type of field"),
    "TypeSafe": (None, _DECISIONS),
    "ReAnchor": (None, _DECISIONS),
    # evaluation
    "Evaluate": ("Evaluate", "`concurrency=`; the score is the mean, not multiplied by 100"),
    "EvaluationResult": ("Evaluation", ""),
    "EM": ("metrics.exact_match", ""),
    "answer_exact_match": ("metrics.exact_match", ""),
    "answer_passage_match": ("metrics.contains", "compares with one field of the prediction"),
    "normalize_text": ("metrics.squad_text", ""),
    "SemanticF1": ("metrics.SemanticF1", ""),
    "CompleteAndGrounded": ("metrics.CompleteAndGrounded", ""),
    # optimizers
    "AvatarOptimizer": (None, _OPTIMIZER),
    "BetterTogether": (None, _TRAINING),
    "BootstrapFewShot": ("BootstrapFewShot", "`teacher_lm=`"),
    "BootstrapFewShotWithOptuna": ("BootstrapRandomSearch", "searches at random"),
    "BootstrapFewShotWithRandomSearch": ("BootstrapRandomSearch", "`num_candidates=`"),
    "BootstrapRS": ("BootstrapRandomSearch", "`num_candidates=`"),
    "BootstrapFinetune": (None, _TRAINING),
    "COPRO": ("COPRO", "`prompt_lm=`"),
    "Ensemble": ("Ensemble", "`reduce=`"),
    "GEPA": ("GEPA", "`budget=`, `prompt_lm=`"),
    "InferRules": (None, _OPTIMIZER),
    "KNNFewShot": (None, _RETRIEVER),
    "LabeledFewShot": ("Predict", "`demos=rows[:k]`"),
    "MIPROv2": ("MIPROv2", "`teacher_lm=`"),
    "SIMBA": ("SIMBA", "`minibatch_size=`"),
    "bootstrap_trace_data": (None, "run.calls and run.rollouts have the traces"),
    "GroundedProposer": (None, "a part of MIPROv2"),
    # models
    "BaseLM": ("LM", "or any object with `async complete(request)`"),
    "LM": ("LM", "`retries=`; a direct call returns one LMReply"),
    "Provider": (None, _WEIGHTS),
    "TrainingJob": (None, _WEIGHTS),
    "Embedder": (None, _RETRIEVER),
    "Embeddings": (None, _RETRIEVER),
    "EmbeddingsWithScores": (None, _RETRIEVER),
    "Retrieve": (None, _RETRIEVER),
    "ColBERTv2": (None, _RETRIEVER),
    "DummyLM": ("ScriptedLM", "or FunctionLM"),
    "DummyVectorizer": (None, _RETRIEVER),
    "dummy_rm": (None, _RETRIEVER),
    "lm15": (None, "dn.LM reaches providers directly, or through litellm"),
    "inspect_history": ("history", ""),
    "pretty_print_history": ("history", ""),
    "track_usage": ("Prediction", "`prediction.usage`, always on"),
    "is_retryable_lm_error": (None, "dn.LM retries by itself; `retries=`"),
    # settings, the cache and saved programs
    "configure": ("configure", ""),
    "context": ("context", ""),
    "settings": ("settings", "reads settings; `settings.save(path)`, `settings.load(path)`"),
    "load_settings": ("settings.load", ""),
    "configure_cache": ("configure", "`cache=False`"),
    "cache": ("configure", "`cache=False`"),
    "load": (None, _PICKLE),
    # async code and streams
    "asyncify": (None, "programs are async; use asyncio.to_thread for a blocking function"),
    "syncify": ("run_sync", "or program.run_sync(…)"),
    "streamify": ("Predict.stream", "for one predictor"),
    "StatusMessage": (None, _STREAM),
    "StatusMessageProvider": (None, _STREAM),
    "StreamListener": (None, _STREAM),
    "StreamResponse": (None, _STREAM),
    "streaming_response": (None, _STREAM),
    "apply_sync_streaming": (None, _STREAM),
    "BaseCallback": (None, "use run.events(), dn.trace() or OpenTelemetry"),
    "with_callbacks": (None, "use run.events(), dn.trace() or OpenTelemetry"),
    # interpreters
    "CodeInterpreter": (None, _INTERPRETER),
    "CodeInterpreterError": (None, _INTERPRETER),
    "CodeExecutionError": (None, _INTERPRETER),
    "FinalOutput": (None, _INTERPRETER),
    "LocalInterpreter": (None, _INTERPRETER),
    "PythonInterpreter": (None, _INTERPRETER),
    "SandboxSerializable": (None, _INTERPRETER),
    "resolve_interpreter_factory": (None, _INTERPRETER),
    # data
    "Colors": (None, "dn.load_dataset and dn.read_examples read data"),
    "DataLoader": ("read_examples", ""),
    "Dataset": (None, "rows are dicts, Examples or a DataFrame"),
    "HotPotQA": (None, "dn.load_dataset and dn.read_examples read data"),
    "MATH": (None, "dn.load_dataset and dn.read_examples read data"),
    "download": (None, "dn.read_examples reads files"),
    # errors
    "AdapterParseError": ("errors.ParseError", ""),
    "ContextWindowExceededError": ("errors.ContextTooLong", ""),
    "DSPyError": ("DspynbError", ""),
    "LMAuthError": ("errors.AuthenticationError", ""),
    "LMBillingError": ("errors.QuotaExceeded", ""),
    "LMCollectionLimitError": (None, _ERRORS),
    "LMConfigurationError": ("errors.ConfigurationError", ""),
    "LMError": ("errors.ModelError", ""),
    "LMInvalidRequestError": ("errors.BadRequestError", ""),
    "LMLockTimeoutError": (None, _ERRORS),
    "LMNotConfiguredError": ("errors.NoModelError", ""),
    "LMProviderError": ("errors.ModelError", ""),
    "LMRateLimitError": ("errors.RateLimited", ""),
    "LMServerError": ("errors.ServerError", ""),
    "LMStreamAssemblyError": ("errors.MalformedReply", ""),
    "LMTimeoutError": ("errors.ModelTimeout", ""),
    "LMTransportError": ("errors.ConnectionFailed", ""),
    "LMUnexpectedError": ("errors.ModelError", ""),
    "LMUnsupportedFeatureError": ("errors.UnsupportedParameter", ""),
    "LMUnsupportedModelError": ("errors.ModelNotFound", ""),
    # logging
    "configure_dspy_loggers": (None, _LOGGING),
    "disable_logging": (None, _LOGGING),
    "enable_logging": (None, _LOGGING),
    "disable_litellm_logging": (None, _LOGGING),
    "enable_litellm_logging": (None, _LOGGING),
    "experimental": (None, "a decorator for DSPy's own code"),
    # submodules
    "clients": ("LM", "its names are in dn"),
    "dsp": (None, _INSIDE),
    "exceptions": ("errors", ""),
    "predict": ("Predict", "its names are in dn"),
    "primitives": ("Module", "its names are in dn"),
    "propose": (None, "a part of MIPROv2"),
    "retrievers": (None, _RETRIEVER),
    "streaming": ("Predict.stream", "for one predictor"),
    "teleprompt": ("Optimizer", "optimizers are in dn"),
    "utils": (None, "its names are in dn, or have no counterpart"),
    "datasets": ("load_dataset", ""),
}
"""For each name: the name after ``dn.``, or None if there is deliberately no counterpart; and a note, or the reason."""


def advice_on(name: str) -> str:
    """What to use for a name of DSPy, as a sentence; empty if it is no name of DSPy."""
    if name not in DSPY_NAMES:
        return ""
    ours, note = DSPY_NAMES[name]
    if ours is None:
        return f"DSPy's {name} is deliberately not in dspynb: {note}."
    return f"DSPy's {name} is dn.{ours} here{f' ({note})' if note else ''}."
