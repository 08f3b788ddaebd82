"""The doctor: a report on what is installed, missing and reachable, for new users and for bug reports.

Each check is a function that yields findings. If a check itself fails, that is a finding too. The doctor changes
nothing, and uses the network only for a model or cluster that the user names.
"""

from dspynb.contrib.doctor.examining import examine, run_doctor
from dspynb.contrib.doctor.report import Finding, Report

__all__ = ["Finding", "Report", "examine", "run_doctor"]
