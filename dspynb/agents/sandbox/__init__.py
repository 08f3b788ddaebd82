"""Running untrusted Python source in a separate process that the kernel keeps from files, network and processes.

The wall is seccomp-BPF (Linux 3.17 or later): before the source is even compiled, the process gives up, for good, every
system call that is not on a short list of those that compute. ``seccomp`` writes the filter, ``child`` is the program
of the process, ``runner`` starts it, holds it to its limits, and reads its reply as hostile text.
"""

from dspynb.agents.sandbox.runner import CodeFailure, CodeResult, Limits, check_isolation, isolation_available, run_code

__all__ = ["CodeFailure", "CodeResult", "Limits", "check_isolation", "isolation_available", "run_code"]
