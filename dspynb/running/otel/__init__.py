"""OpenTelemetry: traces and runs as spans, in the semantic conventions for generative AI, afterwards and live.

Conventions: open-telemetry/semantic-conventions-genai (attributes ``gen_ai.*``; status: development). The table
``tests/running/genai_conventions.json`` lists the attributes and names the commit.
"""

from __future__ import annotations

from dspynb.running.otel.export import export_otel

__all__ = ["export_otel"]
