"""The wall is the kernel's: raw system calls, which Python could not keep anyone from, are refused."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile

import pytest

from dspynb.agents.sandbox.seccomp import this_machine
from tests.modules.sandbox.helpers import CALL, linux, raw, run, x86_64

pytestmark = linux

ORDINARY = {
    # calls that any process may make, harmless as they stand here
    "read": (0, 0, 0, 0),
    "open": (2, b"/dev/null", 0),
    "close": (3, -1),
    "stat": (4, b"/dev/null", b" " * 256),
    "poll": (7, 0, 0, 0),
    "ioctl": (16, 0, 0, 0),
    "pipe": (22, b" " * 8),
    "dup": (32, 1),
    "socket of the internet": (41, 2, 1, 0),
    "socket of the machine": (41, 1, 1, 0),
    "connect": (42, -1, 0, 0),
    "sendto": (44, -1, 0, 0),
    "shmget": (29, 0, 4096, 0o1600),
    "kill, of nobody": (62, 2**22 + 1, 0),
    "fcntl, to signal another process": (72, -1, 8, 1),
    "getcwd": (79, b" " * 4096, 4096),
    "rename": (82, b"/nowhere/a", b"/nowhere/b"),
    "mkdir": (83, b"/nowhere/a", 0o700),
    "unlink": (87, b"/nowhere/a"),
    "symlink": (88, b"/etc/passwd", b"/nowhere/a"),
    "link": (86, b"/nowhere/a", b"/nowhere/b"),
    "readlink": (89, b"/proc/self/exe", b" " * 256, 256),
    "chmod": (90, b"/nowhere/a", 0o777),
    "truncate": (76, b"/nowhere/a", 0),
    "setrlimit": (160, 4, b"\0" * 16),
    "prctl": (157, 4, 1),
    "getppid": (110,),
    "setpgid": (109, 0, 0),
    "openat": (257, -100, b"/dev/null", 0),
    "unlinkat": (263, -100, b"/nowhere/a", 0),
    "splice": (275, -1, 0, -1, 0, 0, 0),
    "epoll_create1": (291, 0),
    "prlimit64, to raise the memory limit": (302, 0, 9, 0, b" " * 16),
    "memfd_create": (319, b"x", 0),
}
EXTRAORDINARY = {
    # calls that are not made outside the sandbox here: they need rights, or do something
    "clone, as fork": (56, 17),
    "clone, as thread": (56, 0x10F00),
    "fork": (57,),
    "vfork": (58,),
    "clone3": (435, b"\0" * 64, 64),
    "execve": (59, b"/bin/true", 0, 0),
    "execveat": (322, -100, b"/bin/true", 0, 0, 0),
    "kill, of init": (62, 1, 9),
    "kill, of all": (62, -1, 9),
    "tkill": (200, 1, 9),
    "tgkill": (234, 1, 1, 9),
    "rt_sigqueueinfo": (129, 1, 9, b"\0" * 128),
    "pidfd_open": (434, 1, 0),
    "pidfd_send_signal": (424, 0, 9, 0, 0),
    "pidfd_getfd": (438, 0, 0, 0),
    "ptrace": (101, 16, 1),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "kcmp": (312, 1, 1, 0, 0, 0),
    "mount": (165, b"none", b"/tmp", b"tmpfs", 0, 0),
    "umount2": (166, b"/tmp", 0),
    "move_mount": (429, -100, b"/tmp", -100, b"/tmp", 0),
    "fsopen": (430, b"tmpfs", 0),
    "pivot_root": (155, b"/tmp", b"/tmp"),
    "chroot": (161, b"/tmp"),
    "unshare": (272, 0x10000000),
    "setns": (308, 0, 0),
    "io_uring_setup": (425, 1, b"\0" * 120),
    "io_uring_enter": (426, 0, 1, 0, 0, 0),
    "io_uring_register": (427, 0, 0, 0, 0),
    "bpf": (321, 0, b"\0" * 128, 128),
    "perf_event_open": (298, b"\0" * 128, 0, -1, -1, 0),
    "userfaultfd": (323, 0),
    "name_to_handle_at": (303, -100, b"/", b"\0" * 136, b"\0" * 8, 0),
    "open_by_handle_at": (304, -100, b"\0" * 136, 0),
    "openat2": (437, -100, b"/dev/null", b"\0" * 24, 24),
    "mknod": (133, b"/tmp/x", 0o600, 0),
    "chown": (92, b"/tmp", 0, 0),
    "setuid": (105, 0),
    "seccomp": (317, 0, 0, 0),
    "keyctl": (250, 0, 0, 0),
    "add_key": (248, b"user", b"x", b"x", 1, -1),
    "finit_module": (313, 0, b"", 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "reboot": (169, 0, 0, 0, 0),
    "sethostname": (170, b"x", 1),
    "clock_settime": (227, 0, b"\0" * 16),
    "syslog": (103, 3, b" " * 256, 256),
    "personality": (135, 0xFFFFFFFF),
    "sched_setaffinity": (203, 1, 8, b"\xff" * 8),
    "landlock_create_ruleset": (444, 0, 0, 1),
    "mq_open": (240, b"x", 0o100, 0o600, 0),
    "alarm": (37, 1),
}
MANY = "{name: call(*arguments) for name, arguments in calls.items()}"


def _source(calls):
    return f"calls = {calls!r}\n"


@pytest.fixture(scope="module")
def refused():
    return raw(_source({**ORDINARY, **EXTRAORDINARY}) + MANY)


@x86_64
@pytest.mark.parametrize("name", [*ORDINARY, *EXTRAORDINARY])
def test_the_kernel_refuses(refused, name):
    assert refused[name] == errno.EPERM


@x86_64
def test_the_same_calls_succeed_outside_the_sandbox():
    source = CALL + _source(ORDINARY) + f"import json\nprint(json.dumps({MANY}))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, close_fds=True)
    assert [name for name, code in json.loads(done.stdout).items() if code == errno.EPERM] == []


PAST_EVERY_FILTER = {335, 336}  # uretprobe, uprobe: for the kernel's own trampolines, no filter sees them (6.14)


@x86_64
@pytest.mark.parametrize("number", sorted(PAST_EVERY_FILTER))
def test_calls_that_linux_takes_from_its_own_trampolines_only_do_nothing_for_anyone_else(number):
    result = run(CALL + f"call({number})", preload=["ctypes"])
    assert result.value in (str(errno.EPERM), str(errno.ENXIO)) or "SIGILL" in result.failure.message


def test_every_number_that_is_not_on_the_list_is_refused():
    numbers = {*range(1200), *(2**i + d for i in range(11, 30) for d in (-1, 0, 1))}
    unlisted = sorted(numbers - set(this_machine().allowed.values()) - PAST_EVERY_FILTER)
    assert set(raw("[call(number) for number in numbers]", {"numbers": unlisted})) == {errno.EPERM}


@x86_64
@pytest.mark.parametrize("number", [39, 257, 512, 520])
def test_the_x32_abi_ends_the_process(number):
    result = run(CALL + f"call({number} | 0x40000000)", preload=["ctypes"])
    assert result.failure.message == "the code's process was ended by SIGSYS"


# push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
INT_0X80 = (
    CALL
    + """
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, ctypes.c_long(4096), 7, 0x22, -1, ctypes.c_long(0))
ctypes.memmove(page, b"\\x53\\xb8\\x14\\0\\0\\0\\xcd\\x80\\x5b\\xc3", 10)
print(ctypes.CFUNCTYPE(ctypes.c_int)(page)())
"""
)


@x86_64
def test_32_bit_system_calls_end_the_process():
    outside = subprocess.run([sys.executable, "-c", INT_0X80], capture_output=True, text=True, check=False)
    if outside.returncode != 0:
        pytest.skip("this kernel has no 32-bit system calls")
    result = run(INT_0X80, preload=["ctypes"])
    assert result.failure.message == "the code's process was ended by SIGSYS"


def test_no_descriptor_is_open_but_the_reply():
    with tempfile.TemporaryFile() as file:
        os.set_inheritable(file.fileno(), True)
        write = this_machine().allowed["write"]
        codes = raw(f"[call({write}, descriptor, b'', 0) for descriptor in range(5000)]")
    assert [descriptor for descriptor, code in enumerate(codes) if code != errno.EBADF] == [1]


def test_the_environment_is_empty(monkeypatch):
    monkeypatch.setenv("SOME_SECRET", "s3cret")
    code = """
import os
pointer = ctypes.c_void_p.in_dll(libc, "environ").value
first = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_char_p))[0] if pointer else None
libc.getenv.restype = ctypes.c_char_p
[dict(os.environ), str(first), str(libc.getenv(b"SOME_SECRET"))]
"""
    assert raw(code) == [{}, "None", "None"]


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/hostname')",
        "open('/proc/self/mem', 'r+b')",
        "open('/proc/self/environ')",
        "open('x', 'w')",
        "import os; os.listdir('/')",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.fork()",
        "import os; os.execv('/bin/sh', ['sh'])",
        "import os; os.posix_spawn('/bin/sh', ['sh'], {})",
        "import os; os.setuid(0)",
        "import _thread; _thread.start_new_thread(print, ())",
        "import _socket; _socket.socket()",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    ],
)
def test_python_s_own_ways_out_are_errors_of_the_code(code):
    failure = run(code, preload=["_socket", "resource"]).failure
    assert failure.kind in ("PermissionError", "RuntimeError", "OSError", "ValueError"), failure
    assert "ermitted" in failure.message or "thread" in failure.message or "not allowed" in failure.message


@pytest.mark.parametrize("name", ["ctypes", "_ctypes", "socket", "subprocess", "multiprocessing", "numpy", "dspynb"])
def test_the_import_error_names_the_available_modules(name):
    failure = run(f"import {name}").failure
    assert failure.kind == "ModuleNotFoundError"
    assert f"{name!r} cannot be imported here; these can: " in failure.message
    assert "math" in failure.message


def test_every_module_that_is_offered_can_be_imported():
    from dspynb.agents.sandbox.child import MODULES

    source = "\n".join(f"import {name}" for name in MODULES)
    assert run(source + "\ndatetime.datetime.strptime('2024-02-29', '%Y-%m-%d').strftime('%j')").value == "060"
