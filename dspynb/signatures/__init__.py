"""Typed signatures: what goes into a predictor, what comes out, and the instruction between them."""

from dspynb.signatures.augment import Augmentation, Confidence, Reasoning, augment
from dspynb.signatures.fields import Field, Input, Output
from dspynb.signatures.signature import Signature, as_signature, rebuilt

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
    "rebuilt",
]
