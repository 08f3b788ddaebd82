"""The record of a run as pandas tables, spans, statistics and prompt diffs."""
