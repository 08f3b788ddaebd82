"""The chain of interceptors between a predictor and its model.

``chain`` has the protocol and builds the chain. The interceptors, outermost first: replay (``replaying/replayer.py``),
resume log (``optimizers/core/resume_log.py``), ``cache``, ``budget``, ``single_flight``.
"""
