"""From DSPy: live objects of it, read without importing it, become dspynb's."""

from dspynb.contrib.migration.translate import from_dspy

__all__ = ["from_dspy"]
