"""Typed signatures: what goes into a predictor, what comes out, and the instruction between them."""

from dspynb.signatures.fields import Field, Input, Output
from dspynb.signatures.signature import Signature, as_signature

__all__ = ["Field", "Input", "Output", "Signature", "as_signature"]
