"""Migration from DSPy: conversion of its objects, without importing it."""

from dspynb.contrib.migration.translate import from_dspy

__all__ = ["from_dspy"]
