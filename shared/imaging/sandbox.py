"""Removes the rights of a decoder process before it reads an untrusted file: it can only compute and answer.

Three kernel mechanisms are used. Each alone stops most attacks from a compromised decoder. A container or an old kernel
may lack some; `enter_sandbox` then continues without them and returns the active ones.

* `seccomp`: allows only the system calls that computing needs, so no files, programs or connections can be opened.
* `landlock`: blocks files and TCP ports, and for other processes: signals, abstract sockets and inspection.
* `namespaces`: a separate user without capabilities, and a separate network without interfaces.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
import sys

SECCOMP, LANDLOCK, NAMESPACES = PROTECTIONS = ("seccomp", "landlock", "namespaces")

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 4, 38, 24
_CLONE_NEWUSER, _CLONE_NEWIPC, _CLONE_NEWNET, _CLONE_THREAD = 0x10000000, 0x08000000, 0x40000000, 0x10000

# System calls by machine: x86_64, aarch64. linux/include/uapi/asm-generic/unistd.h, arch/x86/entry/syscalls.
_MACHINES = {"x86_64": 0, "aarch64": 1}
_AUDIT_ARCH = (0xC000003E, 0xC00000B7)
_CAPSET, _SECCOMP_CALL = (126, 91), (317, 277)
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_CLONE, _CLONE3, _TGKILL = (56, 220), (435, 435), (234, 131)
#: The system calls that Python and the decoders use after all imports, and further harmless ones.
_ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "writev": (20, 66),
    "close": (3, 57),
    "lseek": (8, 62),
    "brk": (12, 214),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "madvise": (28, 233),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "restart_syscall": (219, 128),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "exit": (60, 93),
    "exit_group": (231, 94),
}

# Classic BPF: linux/include/uapi/linux/bpf_common.h, seccomp.h.
_LOAD, _EQUAL, _SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_AT_NUMBER, _AT_MACHINE, _AT_FIRST_ARGUMENT = 0, 4, 16
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1

# Keyed by the oldest ABI that supports them: linux/include/uapi/linux/landlock.h.
_FS_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 5: 0xFFFF}
_NET_RIGHTS, _SCOPES = 0b11, 0b11
_LANDLOCK_NET_ABI, _LANDLOCK_SCOPE_ABI = 4, 6


def hide_memory() -> None:
    """Prevent core dumps, and other processes of the same user from reading this one's memory and environment."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def enter_sandbox(threads: int) -> list[str]:
    """Permanently drop every right that decoding does not need; return the active `PROTECTIONS`.

    Call it after all imports, while no other thread runs. Up to `threads` threads can be started later.
    """
    os.chdir("/")
    hide_memory()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    machine = _MACHINES[platform.machine()]
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    active = {NAMESPACES: libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC) == 0}
    if active[NAMESPACES]:  # without a namespace, the limit counts all processes of the user
        resource.setrlimit(resource.RLIMIT_NPROC, (threads, threads))
    _drop_capabilities(libc, machine)
    active[LANDLOCK] = _restrict_by_landlock(libc)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    active[SECCOMP] = _filter_system_calls(libc, machine)
    return [name for name in PROTECTIONS if active[name]]


def _drop_capabilities(libc: ctypes.CDLL, machine: int) -> None:
    capability = 0
    while libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    libc.syscall(_CAPSET[machine], header, bytes(24))


def _restrict_by_landlock(libc: ctypes.CDLL) -> bool:
    """Deny everything that Landlock can deny: the ruleset handles all rights and grants none."""
    abi = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    if abi < 1:
        return False
    rights = max(bits for since, bits in _FS_RIGHTS.items() if since <= abi)
    fields = [rights]
    if abi >= _LANDLOCK_NET_ABI:
        fields.append(_NET_RIGHTS)
    if abi >= _LANDLOCK_SCOPE_ABI:
        fields.append(_SCOPES)
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    try:
        return bool(libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _filter_system_calls(libc: ctypes.CDLL, machine: int) -> bool:
    program = b"".join(struct.pack("HBBI", *each) for each in _program(machine))
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    return bool(
        libc.syscall(_SECCOMP_CALL[machine], _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, filter_) == 0
    )


def _program(machine: int) -> list[tuple[int, int, int, int]]:
    """Return the filter as (code, jump if true, jump if false, operand); other system calls fail with EPERM."""
    refuse = (_RETURN, 0, 0, _REFUSE | errno.EPERM)
    program = [(_LOAD, 0, 0, _AT_MACHINE), (_EQUAL, 1, 0, _AUDIT_ARCH[machine]), (_RETURN, 0, 0, _KILL)]
    program.append((_LOAD, 0, 0, _AT_NUMBER))
    for numbers in _ALLOWED.values():
        program += [(_EQUAL, 0, 1, numbers[machine]), (_RETURN, 0, 0, _ALLOW)]
    # The flags of `clone3` are in memory, which a filter cannot read. If it is missing, the C library uses `clone`.
    program += [(_EQUAL, 0, 1, _CLONE3[machine]), (_RETURN, 0, 0, _REFUSE | errno.ENOSYS)]
    for call, condition in ((_CLONE, (_SET, 0, 1, _CLONE_THREAD)), (_TGKILL, (_EQUAL, 0, 1, os.getpid()))):
        program += [(_EQUAL, 0, 4, call[machine]), (_LOAD, 0, 0, _AT_FIRST_ARGUMENT)]
        program += [condition, (_RETURN, 0, 0, _ALLOW), refuse]
    return [*program, refuse]
