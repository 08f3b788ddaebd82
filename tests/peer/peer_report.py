"""A pytest plugin that writes the result of each test to the file that PEER_REPORT names, as lines of JSON."""

import json
import os

# The file stays open, since some tests replace `open`.
_report = os.open(os.environ["PEER_REPORT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        message = ""
        if report.outcome == "skipped":
            message = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "expected to fail"
        elif report.outcome == "failed":
            crash = getattr(report.longrepr, "reprcrash", None)
            lines = str(crash.message if crash else report.longrepr).splitlines()
            message = (lines or [""])[0][:300]
        os.write(_report, (json.dumps([report.nodeid, report.outcome, message]) + "\n").encode())
