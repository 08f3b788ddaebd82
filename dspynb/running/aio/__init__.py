"""asyncio as runs use it: ending tasks, threads, synchronous calls, signals."""
