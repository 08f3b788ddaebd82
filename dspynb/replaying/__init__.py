"""Running a program again on the replies of a recorded run."""

from dspynb.replaying.replayer import Replay, replay

__all__ = [
    "Replay",
    "replay",
]
