"""What stands between a predictor and its model: a chain of interceptors, one small module each.

``chain`` is the protocol and the chain itself. The links in their order: a replay (``replaying/replayer.py``), the log
of a run that is resumed (``optimizers/core/resume_log.py``), ``cache``, ``budget``, ``single_flight``.
"""
