"""Locks of run files: each file has one writer at a time, and a dead process holds no lock.

The lock of ``RUN.jsonl`` has two parts:

- *A range lock of the operating system* on one byte of the file ``.dspynb-lock`` in the same folder. The offset is a
  hash of the file's name. The system releases the lock when the process ends in any way, so a run whose process was
  killed can be resumed at once. One open file serves all runs of a folder: with a file per run, ten thousand concurrent
  runs would need ten thousand descriptors. On Linux the lock belongs to the open file (``F_OFD_SETLK``), since a POSIX
  lock is lost when any code of the process closes the same file; elsewhere it is ``lockf`` or ``msvcrt.locking``. A
  forked child closes its copy, so that it does not keep the lock of a parent that died.
- *An owner file*, ``RUN.jsonl.lock``, with host, process and time. Errors name the owner. The file also prevents a
  second writer where the file system has no locks (which is logged once), and where locks do not work between machines
  (NFS mounted with ``nolock``). On the same machine, the process id and start time show whether the owner is alive;
  the id alone does not, since ids are used again. The process of another machine cannot be checked: its lock is
  respected, and the error says which file to delete once that process has ended.

Reading needs no lock.
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

__all__ = ["RunLock", "is_being_written", "lock_run"]

_log = logging.getLogger("dspynb")
_GUARD = ".dspynb-lock"
_OFFSETS = 2**30 if sys.platform == "win32" else 2**62
_ATTEMPTS = 100
_PAUSE = 0.01  # seconds between attempts
_Owner = dict[str, Any]

_mutex = threading.RLock()
_locks: dict[Path, RunLock] = {}  # real path of the run file → the lock that this process holds
_guards: dict[Path, _Guard] = {}  # folder → its open guard file
_warned = False


class RunLock:
    """The right to write a run file. ``release`` ends it; a second call of it does nothing."""

    def __init__(self, path: Path, guard: _Guard | None, owner: _Owner) -> None:
        self.path = path
        self.owner = owner
        self._guard = guard
        self._pid = os.getpid()
        self.released = False

    def release(self) -> None:
        """Let others write the file. In a forked child this does nothing: the lock belongs to its parent."""
        with _mutex:
            if self.released or self._pid != os.getpid():
                return
            self.released = True
            _locks.pop(self.path, None)
            if _read_owner(self.path) == self.owner:
                with contextlib.suppress(OSError):
                    _owner_file(self.path).unlink()
            if self._guard is not None:
                self._guard.unlock(_offset(self.path))


def lock_run(path: str | Path) -> RunLock:
    """Acquire the lock of a run file. Raises RunInUse, which names the owner, where another run holds it."""
    real_path = Path(os.path.realpath(path))
    with _mutex:
        if real_path in _locks:
            raise _in_use(real_path, _locks[real_path].owner)
        guard = _locked_guard(real_path)
        try:
            owner = _write_owner(real_path, locked=guard is not None)
        except BaseException:
            if guard is not None:
                guard.unlock(_offset(real_path))
            raise
        lock = RunLock(real_path, guard, owner)
        _locks[real_path] = lock
        return lock


def is_being_written(path: str | Path) -> bool:
    """Whether a live process of this machine writes the run file. False where its process is on another machine, since
    nobody can know there whether it is alive."""
    real_path = Path(os.path.realpath(path))
    with _mutex:
        if real_path in _locks:
            return True
    owner = _read_owner(real_path)
    return owner is not None and _is_alive(owner, _this_process()) is True


def _locked_guard(path: Path) -> _Guard | None:
    """The guard of the folder, which now holds the lock of this file; None where there are no locks. Raises RunInUse.

    Retries for a second where the owner is dead: a killed process counts as dead when its first thread has ended, but
    its other threads hold the lock for some microseconds more.
    """
    for _ in range(_ATTEMPTS):
        guard = _guard_of(path.parent)
        try:
            if guard is not None and guard.lock(_offset(path)):
                return guard
            return None
        except BlockingIOError:
            owner = _read_owner(path)
            if not owner or _is_alive(owner, _this_process()) is not False:
                break
            time.sleep(_PAUSE)
    raise _in_use(path, _read_owner(path))


# ── locks of the operating system ─────────────────────────────────────────────────────────────────────────────────────
def _byte_lock(fd: int, offset: int, *, acquire: bool) -> None:
    """Lock or unlock one byte without waiting. Raises BlockingIOError or PermissionError where another process holds
    it, OSError or NotImplementedError where there are no locks."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(fd, offset, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK if acquire else msvcrt.LK_UNLCK, 1)
        return
    try:
        import fcntl
    except ImportError:
        raise NotImplementedError from None
    if sys.platform == "linux" and sys.maxsize > 2**32:
        lock_type = fcntl.F_WRLCK if acquire else fcntl.F_UNLCK
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi", lock_type, os.SEEK_SET, offset, 1, 0))
    else:
        operation = fcntl.LOCK_EX | fcntl.LOCK_NB if acquire else fcntl.LOCK_UN
        fcntl.lockf(fd, operation, 1, offset, os.SEEK_SET)


class _Guard:
    """The open guard file of a folder. It is closed when the last run in the folder releases its lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locked = 0  # the number of locked bytes
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        self.fd = os.open(folder / _GUARD, flags, 0o600)

    def lock(self, offset: int) -> bool:
        """Lock a byte. Returns False where the file system has no locks. Raises BlockingIOError where another process
        holds it."""
        try:
            _byte_lock(self.fd, offset, acquire=True)
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
        self._locked += 1
        return True

    def unlock(self, offset: int) -> None:
        with contextlib.suppress(OSError):
            _byte_lock(self.fd, offset, acquire=False)
        self._locked -= 1
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._locked:
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
            "the folder %s has no file locks (%s): only the .lock file beside a run file prevents a second writer",
            folder,
            error.strerror or error,
        )


# ── owner files ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _owner_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _write_owner(path: Path, *, locked: bool) -> _Owner:
    """Write this process to the owner file of a run file, and return it. ``locked``: whether this process holds the
    lock of the operating system. Raises RunInUse where the file names another process that may be alive."""
    owner = {**_this_process(), "since": time.time(), "token": secrets.token_hex(4)}
    for _ in range(3):  # without locks, another process may write between two steps
        earlier = _read_owner(path)
        if earlier is not None and not _is_over(earlier, locked=locked):
            raise _in_use(path, earlier)
        try:
            if locked:
                _write_owner_file(_owner_file(path), owner)
                return owner
            if earlier is None or _remove_owner_file(path, earlier):
                _create_owner_file(path, owner)
                return owner
        except FileExistsError:
            continue
        except OSError as error:
            _warn(path.parent, error)
            return owner
    raise _in_use(path, _read_owner(path))


def _write_owner_file(file: Path, owner: _Owner, flags: int = os.O_TRUNC) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | flags, 0o600)
    with os.fdopen(fd, "wb") as stream:
        stream.write(json.dumps(owner).encode())


def _create_owner_file(path: Path, owner: _Owner) -> None:
    """Create the owner file of a run file in one step, so that others see all of it or nothing. Raises FileExistsError
    where there is one."""
    temporary = path.with_name(f"{path.name}.lock.{owner['token']}")
    _write_owner_file(temporary, owner, os.O_EXCL)
    try:
        os.link(temporary, _owner_file(path))
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # the system or file system has no hard links
        _write_owner_file(_owner_file(path), owner, os.O_EXCL)
    finally:
        temporary.unlink()


def _remove_owner_file(path: Path, dead_owner: _Owner) -> bool:
    """Remove the owner file of a dead process. If another process has written it meanwhile, restore it and return
    False."""
    moved = path.with_name(f"{path.name}.lock.{secrets.token_hex(4)}")
    try:
        _owner_file(path).rename(moved)
    except FileNotFoundError:
        return True
    is_dead_owner = _read_owner_file(moved) == dead_owner
    if not is_dead_owner:
        with contextlib.suppress(OSError):
            os.link(moved, _owner_file(path))
    moved.unlink()
    return is_dead_owner


def _read_owner(path: Path) -> _Owner | None:
    return _read_owner_file(_owner_file(path))


def _read_owner_file(file: Path) -> _Owner | None:
    """The content of an owner file; None where there is no file, an empty dict where it cannot be read."""
    try:
        fd = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
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
    """Whether an owner is known to hold the run no longer. ``locked``: whether this process holds the lock of the
    operating system; then no other process on this machine can hold it."""
    process = _this_process()
    if all(owner.get(name) == value for name, value in process.items()):
        return True  # this process does not hold the lock any more, but could not delete the owner file
    alive = _is_alive(owner, process)
    if alive is not None:
        return not alive
    if not locked:
        return False
    if not owner:  # the owner file is incomplete, and whoever was writing it has no lock
        return True
    if owner.get("boot") and process["boot"]:
        return bool(owner["boot"] == process["boot"])
    return bool(owner.get("host") == process["host"])


def _is_alive(owner: _Owner, process: _Owner) -> bool | None:
    """Whether the process of an owner is alive; None where ``process``, this one, cannot know it."""
    pid = owner.get("pid")
    if not is_count(pid) or not pid:
        return None
    same_host = owner.get("host") == process["host"]
    boots_known = bool(owner.get("boot") and process["boot"])
    if boots_known and owner["boot"] != process["boot"]:
        return False if same_host else None  # either this machine was restarted, or it is another machine
    if not (same_host or boots_known) or owner.get("space") != process["space"]:
        return None  # on another machine or in another container, where process ids mean other processes
    if process["born"] is not None:
        return _start_time(pid) == owner.get("born")
    # Start times are not known here, and the id of a dead process may be used again.
    if _exists(pid):
        return None
    return False


def _exists(pid: int) -> bool:
    if os.name != "posix":  # signal 0 only exists on POSIX
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _start_time(pid: int) -> int | None:
    """The start time of a process, in clock ticks since the machine started; None where the process has ended or
    cannot be inspected."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = text[text.rfind(")") + 2 :].split()  # the fields after the program's name
    if state in "ZX":
        return None
    return int(fields[18])


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
    return {"host": socket.gethostname(), "boot": boot, "space": space, "pid": pid, "born": _start_time(pid)}


def _in_use(path: Path, owner: _Owner | None) -> RunInUse:
    """The error that names an owner, as far as the owner file is valid."""
    owner = owner or {}
    process = _this_process()
    is_this_process = all(owner.get(name) == value for name, value in process.items())
    is_alive = is_this_process or _is_alive(owner, process) is True
    pid = owner.get("pid")
    if not isinstance(pid, int):
        pid = None
    host = owner.get("host")
    if not isinstance(host, str):
        host = None
    since = owner.get("since")
    if not isinstance(since, int | float) or not 0 < since < 1e11:
        since = None
    delete = None if is_alive else str(_owner_file(path))
    return RunInUse(str(path), pid=pid, host=host, since=since, here=is_this_process, delete=delete)


def _forget_parents_locks() -> None:
    """Forget all locks in a forked child, since they belong to the parent. The descriptors are closed, since an open
    one keeps the locks."""
    global _mutex  # noqa: PLW0603
    _mutex = threading.RLock()
    for guard in list(_guards.values()):
        with contextlib.suppress(OSError):
            os.close(guard.fd)
    _guards.clear()
    _locks.clear()


after_fork_in_child(_forget_parents_locks)
