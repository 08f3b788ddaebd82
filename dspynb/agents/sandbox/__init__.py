"""Runs untrusted Python source in a separate process that the kernel isolates from files and network.

The isolation is seccomp-BPF (Linux 3.17 or later). Before the source is compiled, the process permanently gives up all
system calls but a short list of calls for computing. ``seccomp`` builds the filter, ``child`` is the program of the
process, and ``runner`` starts it, enforces its limits, and reads its reply as untrusted text.
"""

from dspynb.agents.sandbox.runner import CodeFailure, CodeResult, Limits, check_isolation, isolation_available, run_code

__all__ = ["CodeFailure", "CodeResult", "Limits", "check_isolation", "isolation_available", "run_code"]
