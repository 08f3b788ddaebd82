"""One writer a run file: a lock that is held while a run writes its file, and that a dead process does not hold.

Two things make the lock of ``RUN.jsonl``:

- *A range lock of the operating system*: one byte of the file ``.dspynb-lock`` in the same folder, at an offset that is
  made from the file's name. The system drops it when the process ends, however it ends, so that a run whose process was
  killed can be resumed at once. One open file serves all runs of a folder: with one a run, ten thousand runs at a time
  would need ten thousand descriptors. On Linux the lock belongs to the open file (``F_OFD_SETLK``), since a POSIX lock
  is lost when anything else in the process closes the same file; elsewhere it is ``lockf`` or ``msvcrt.locking``. A
  forked child closes its copy, so that it does not go on holding the lock of a parent that died.
- *A record of the owner*, ``RUN.jsonl.lock``: host, process, since when. It is what an error can name, what refuses a
  second writer where the file system has no locks (said once), and where locks do not reach from one machine to another
  (NFS mounted with ``nolock``). Whether its process lives is known on the same machine, by number and start time, since
  numbers are used again. An owner on another machine cannot be looked at: it is refused, and the error says which file
  to delete when that process is gone.

Reading takes no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import socket
import struct
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from dspynb.errors import RunInUse
from dspynb.json_checks import is_count
from dspynb.processes import after_fork_in_child

__all__ = ["RunLock", "lock_run"]

_log = logging.getLogger("dspynb")
_GUARD = ".dspynb-lock"
_OFFSETS = 2**30 if sys.platform == "win32" else 2**62
_TRIES, _PAUSE = 100, 0.01
_Owner = dict[str, Any]

_mutex = threading.RLock()
_locks: dict[Path, RunLock] = {}  # real path of the run file → the lock that this process holds
_guards: dict[Path, _Guard] = {}  # folder → its open guard file
_warned = False


class RunLock:
    """The right to write a run file. ``release`` gives it back; a second time does nothing."""

    def __init__(self, path: Path, guard: _Guard | None, owner: _Owner) -> None:
        self.path, self.owner = path, owner
        self._guard = guard
        self._pid = os.getpid()
        self.released = False

    def release(self) -> None:
        """Let others write the file. In a forked child this does nothing: the lock is its parent's."""
        with _mutex:
            if self.released or self._pid != os.getpid():
                return
            self.released = True
            _locks.pop(self.path, None)
            if _read_owner(self.path) == self.owner:
                with contextlib.suppress(OSError):
                    _record_of(self.path).unlink()
            if self._guard is not None:
                self._guard.unlock(_offset(self.path))


def lock_run(path: str | Path) -> RunLock:
    """Take the lock of a run file, or raise RunInUse, which names who has it."""
    real = Path(os.path.realpath(path))
    with _mutex:
        if real in _locks:
            raise _in_use(real, _locks[real].owner)
        guard = _locked_guard(real)
        try:
            owner = _claim(real, locked=guard is not None)
        except BaseException:
            if guard is not None:
                guard.unlock(_offset(real))
            raise
        lock = _locks[real] = RunLock(real, guard, owner)
        return lock


def _locked_guard(path: Path) -> _Guard | None:
    """The guard of the folder, with the lock of this file; None where there are no locks. Raises RunInUse.

    Where the owner is dead, the system is about to drop its lock: a killed process is dead as soon as its first thread
    has ended, and the others hold the file for some microseconds more. So it is asked again for a second.
    """
    for _ in range(_TRIES):
        guard = _guard_of(path.parent)
        try:
            return guard if guard is not None and guard.lock(_offset(path)) else None
        except BlockingIOError:
            owner = _read_owner(path)
            if not owner or _is_alive(owner, _this_process()) is not False:
                break
            time.sleep(_PAUSE)
    raise _in_use(path, _read_owner(path))


# ── locks of the operating system ─────────────────────────────────────────────────────────────────────────────────────
def _byte_lock(fd: int, offset: int, *, take: bool) -> None:
    """Lock or unlock one byte without waiting. Raises BlockingIOError or PermissionError where another has it, OSError
    or NotImplementedError where there are no locks."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(fd, offset, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK if take else msvcrt.LK_UNLCK, 1)
        return
    try:
        import fcntl
    except ImportError:
        raise NotImplementedError from None
    if sys.platform == "linux" and sys.maxsize > 2**32:
        kind = fcntl.F_WRLCK if take else fcntl.F_UNLCK
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, offset, 1, 0))
    else:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN, 1, offset, os.SEEK_SET)


class _Guard:
    """The open guard file of a folder, closed when the last run in it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._held = folder, 0
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        self.fd = os.open(folder / _GUARD, flags, 0o600)

    def lock(self, offset: int) -> bool:
        """Take the byte; False where the file system has no locks. Raises BlockingIOError where another has it."""
        try:
            _byte_lock(self.fd, offset, take=True)
        except (BlockingIOError, PermissionError) as error:
            self._close_if_idle()
            raise BlockingIOError from error
        except NotImplementedError:
            self._close_if_idle()
            return False
        except OSError as error:
            self._close_if_idle()
            _warn(self._folder, error)
            return False
        self._held += 1
        return True

    def unlock(self, offset: int) -> None:
        with contextlib.suppress(OSError):
            _byte_lock(self.fd, offset, take=False)
        self._held -= 1
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._held:
            _guards.pop(self._folder, None)
            with contextlib.suppress(OSError):
                os.close(self.fd)


def _guard_of(folder: Path) -> _Guard | None:
    try:
        if folder not in _guards:
            _guards[folder] = _Guard(folder)
    except OSError as error:
        _warn(folder, error)
        return None
    return _guards[folder]


def _offset(path: Path) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(path.name)).digest()[:8]) % _OFFSETS


def _warn(folder: Path, error: OSError) -> None:
    global _warned  # noqa: PLW0603
    if not _warned:
        _warned = True
        _log.warning(
            "the folder %s has no file locks (%s): that a run file has one writer is known only by its .lock file",
            folder,
            error.strerror or error,
        )


# ── the record of the owner ───────────────────────────────────────────────────────────────────────────────────────────
def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _claim(path: Path, *, locked: bool) -> _Owner:
    """Write the record of this process, in place of one whose process is dead. Raises RunInUse for any other."""
    mine = {**_this_process(), "since": time.time(), "token": secrets.token_hex(4)}
    for _ in range(3):  # without locks another process may come in between
        before = _read_owner(path)
        if before is not None and not _is_over(before, locked=locked):
            raise _in_use(path, before)
        try:
            if locked:
                _write_record(_record_of(path), mine)
                return mine
            if before is None or _set_aside(path, before):
                _create_record(path, mine)
                return mine
        except FileExistsError:
            continue
        except OSError as error:
            _warn(path.parent, error)
            return mine
    raise _in_use(path, _read_owner(path))


def _write_record(name: Path, owner: _Owner, flags: int = os.O_TRUNC) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | flags, 0o600)
    with os.fdopen(fd, "wb") as stream:
        stream.write(json.dumps(owner).encode())


def _create_record(path: Path, owner: _Owner) -> None:
    """Raises FileExistsError where there is one. Others see all of it or nothing."""
    part = path.with_name(f"{path.name}.lock.{owner['token']}")
    _write_record(part, owner, os.O_EXCL)
    try:
        os.link(part, _record_of(path))
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # no hard links here
        _write_record(_record_of(path), owner, os.O_EXCL)
    finally:
        part.unlink()


def _set_aside(path: Path, dead: _Owner) -> bool:
    """Take a dead owner's record away; put back what another process wrote there meanwhile."""
    aside = path.with_name(f"{path.name}.lock.{secrets.token_hex(4)}")
    try:
        _record_of(path).rename(aside)
    except FileNotFoundError:
        return True
    same = _read_record(aside) == dead
    if not same:
        with contextlib.suppress(OSError):
            os.link(aside, _record_of(path))
    aside.unlink()
    return same


def _read_owner(path: Path) -> _Owner | None:
    return _read_record(_record_of(path))


def _read_record(name: Path) -> _Owner | None:
    """What a record says; None where there is none, and an owner without any data where it cannot be read."""
    try:
        fd = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    except OSError:
        return {}
    try:
        with os.fdopen(fd, "rb") as stream:
            owner = json.loads(stream.read(10_000))
    except (OSError, ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_over(owner: _Owner, *, locked: bool) -> bool:
    """Whether the process of a record is known to hold the run no more. ``locked``: this process has the lock of the
    system, which on one machine no other can have then."""
    me = _this_process()
    if all(owner.get(name) == value for name, value in me.items()):
        return True  # of this process, and not among its locks: it could not be deleted
    alive = _is_alive(owner, me)
    if alive is not None:
        return not alive
    if not locked:
        return False
    if not owner:  # not written to its end: whoever began it has no lock
        return True
    boot = owner.get("boot")
    here = boot == me["boot"] if boot and me["boot"] else owner.get("host") == me["host"]
    return bool(here)


def _is_alive(owner: _Owner, me: _Owner) -> bool | None:
    """Whether the process of a record lives; None where that cannot be known from here."""
    pid, boot, same_host = owner.get("pid"), owner.get("boot"), owner.get("host") == me["host"]
    if not is_count(pid) or not pid:
        return None
    if boot and me["boot"] and boot != me["boot"]:
        return False if same_host else None  # this machine was started anew, or it is another
    if not (same_host or (boot and me["boot"])) or owner.get("space") != me["space"]:
        return None  # of another machine, or of another container: numbers mean other processes there
    if me["born"] is not None:
        return _born(pid) == owner.get("born")
    return None if _exists(pid) else False  # where start times are not known, the number may be used again


def _exists(pid: int) -> bool:
    if os.name != "posix":  # elsewhere the signal 0 is none
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _born(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; None where it is over, or cannot be looked at."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = text[text.rfind(")") + 2 :].split()  # before it stands the program's name
    return None if state in "ZX" else int(fields[18])


def _this_process() -> _Owner:
    return _process(os.getpid())


@cache
def _process(pid: int) -> _Owner:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return {"host": socket.gethostname(), "boot": boot, "space": space, "pid": pid, "born": _born(pid)}


def _in_use(path: Path, owner: _Owner | None) -> RunInUse:
    owner = owner or {}
    me = _this_process()
    here = all(owner.get(name) == value for name, value in me.items())
    sure = here or _is_alive(owner, me) is True
    since, host = owner.get("since"), owner.get("host")
    return RunInUse(
        str(path),
        pid=owner.get("pid") if isinstance(owner.get("pid"), int) else None,
        host=host if isinstance(host, str) else None,
        since=since if isinstance(since, int | float) and 0 < since < 1e11 else None,
        here=here,
        delete=None if sure else str(_record_of(path)),
    )


def _forget() -> None:
    """In a forked child: the locks are the parent's. Its descriptors are closed, since an open one holds them."""
    global _mutex  # noqa: PLW0603
    _mutex = threading.RLock()
    for guard in list(_guards.values()):
        with contextlib.suppress(OSError):
            os.close(guard.fd)
    _guards.clear()
    _locks.clear()


after_fork_in_child(_forget)
