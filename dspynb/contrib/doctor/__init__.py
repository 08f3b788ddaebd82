"""The doctor: what is installed, missing and reachable, for who begins and for who reads a report of a bug.

Each check is a function that gives findings; one that fails itself is a finding. No network is touched but for the
model and the cluster that are asked for, and nothing is made or changed.
"""

from dspynb.contrib.doctor.examining import examine, run_doctor
from dspynb.contrib.doctor.report import Finding, Report

__all__ = ["Finding", "Report", "examine", "run_doctor"]
