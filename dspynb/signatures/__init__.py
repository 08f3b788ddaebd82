"""Typed signatures: the inputs and outputs of a predictor, and its instruction."""

from dspynb.signatures.augment import Augmentation, Confidence, Reasoning, augment
from dspynb.signatures.fields import Field, Input, Output
from dspynb.signatures.signature import Signature, as_signature, rebuild

__all__ = [
    "Augmentation",
    "Confidence",
    "Field",
    "Input",
    "Output",
    "Reasoning",
    "Signature",
    "as_signature",
    "augment",
    "rebuild",
]
