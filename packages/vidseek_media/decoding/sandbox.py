"""Confines a worker process: resource limits, no new privileges, and kernel rules (Landlock, seccomp).

A worker applies these functions to itself before it reads any foreign input. A rule that the kernel does not support is left
out, and `in_force` reports it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path


class Confinement(Enum):
    """How much a worker is trusted with."""

    UPLOAD = "upload"
    """Reads what it is given and nothing else: no file, no network, no process, no thread."""
    ARCHIVE = "archive"
    """As UPLOAD, but it opens the one file of its first job by its path, and may have threads."""
    BATCH = "batch"
    """Reads and writes files as its user may: a stage of the pipeline. No network, no process."""


@dataclass(frozen=True)
class InForce:
    """Which rules this kernel offers."""

    landlock_abi: int
    """0 where there is none; files from 1 on, TCP from 4 on, signals to others from 6 on."""
    has_seccomp: bool

    def in_words(self) -> str:
        """Describe the rules in one line."""
        landlock = f"Landlock ABI {self.landlock_abi}" if self.landlock_abi else "no Landlock"
        return f"{landlock}, {'seccomp' if self.has_seccomp else 'no seccomp'}"

    @property
    def is_whole(self) -> bool:
        """Whether neither files nor network of this machine can be reached from a worker of uploads."""
        return self.landlock_abi >= 1 and self.has_seccomp


_PR_SET_PDEATHSIG, _PR_GET_SECCOMP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 21, 22, 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on all architectures
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many kinds of access to files an ABI of Landlock knows: the lowest bits of its mask."""
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_ALL_TCP, _ALL_SCOPES = 0b11, 0b11

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_DENIED = {
    "x86_64": (
        41, 42, 43, 49, 50, 53, 288,  # socket, connect, accept, bind, listen, socketpair, accept4
        57, 58, 59, 322,  # fork, vfork, execve, execveat
        62, 424, 434, 438,  # kill, pidfd_send_signal, pidfd_open, pidfd_getfd
        101, 310, 311,  # ptrace, process_vm_readv, process_vm_writev
        135, 155, 161, 163, 164, 165, 166, 167, 169, 170, 171, 172, 173, 175, 227, 246, 272, 298, 304, 308, 313, 321, 323,
        248, 249, 250, 425,  # add_key, request_key, keyctl, io_uring_setup
    ),
    "aarch64": (
        198, 199, 200, 201, 202, 203, 242, 221, 281, 129, 424, 434, 438, 117, 270, 271,
        92, 41, 51, 89, 170, 40, 39, 224, 142, 161, 162, 105, 112, 104, 97, 241, 265, 268, 273, 280, 282, 217, 218, 219, 425,
    ),
}
"""Numbers of system calls that no decoder needs. The lines without names are of mounts, namespaces, modules, clocks, bpf,
perf, swap, reboot and the like."""
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_CLONE_THREAD = 0x10000


@cache
def in_force() -> InForce:
    """Return which rules the kernel supports; changes nothing."""
    if not sys.platform.startswith("linux"):
        return InForce(0, False)
    abi = _libc().syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return InForce(max(abi, 0), platform.machine() in _ARCHITECTURES and _libc().prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0)


def give_up_privileges() -> None:
    """No program that this process runs gains rights that it has not."""
    if sys.platform.startswith("linux"):
        _must(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def die_with_parent(signal: int) -> None:
    """Have the kernel send `signal` here when the parent ends. Only for a parent of one thread."""
    if sys.platform.startswith("linux"):
        _must(_libc().prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "PR_SET_PDEATHSIG")


def limit_resources(confinement: Confinement, *, memory_mib: int) -> None:
    """Limits of memory, core files and, but for BATCH, of files, processes and what is written.

    `memory_mib` is of the memory that the process allocates. The limit of address space, which also counts what is mapped
    of libraries, lies as far above what is mapped now.
    """
    _limit(resource.RLIMIT_DATA, memory_mib * 2**20)
    _limit(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError, ValueError):  # the kernel's last resort should not be the service
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if confinement is Confinement.BATCH:
        return
    with contextlib.suppress(OSError, ValueError, IndexError):
        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        _limit(resource.RLIMIT_AS, mapped + memory_mib * 2**20)
    _limit(resource.RLIMIT_NOFILE, 64)
    _limit(resource.RLIMIT_FSIZE, 0)
    if confinement is Confinement.UPLOAD:
        _limit(resource.RLIMIT_NPROC, 0)


def confine(confinement: Confinement, *, libraries: Iterable[Path], file: Path | None = None) -> None:
    """Apply kernel rules to this process permanently. Call `give_up_privileges` first.

    Args:
        confinement: What to forbid. With UPLOAD and ARCHIVE, only `libraries` and `file` can be opened afterwards, for
            reading.
        libraries: Folders with Python's modules.
        file: The one file that ARCHIVE may read.
    """
    offered = in_force()
    if confinement is Confinement.UPLOAD:
        _drop_capabilities()
    if offered.landlock_abi:
        readable = [*libraries, *([file] if file is not None else [])]
        _restrict_files(offered.landlock_abi, None if confinement is Confinement.BATCH else readable)
    if offered.has_seccomp:
        _restrict_calls(with_threads=confinement is not Confinement.UPLOAD)


def _drop_capabilities() -> None:
    """Root is then like anybody else, but for the files that it owns."""
    if sys.platform.startswith("linux"):
        header = struct.pack("=II", 0x20080522, 0)
        _must(_libc().capset(header, bytes(24)), "capset")


def _restrict_files(abi: int, readable: list[Path] | None) -> None:
    """No file but `readable` (all, where it is None), no TCP, no signal to others."""
    rights = (1 << _RIGHTS_BY_ABI[min(abi, 5)]) - 1 if readable is not None else 0
    fields = [rights, *([_ALL_TCP] if abi >= 4 else []), *([_ALL_SCOPES] if abi >= 6 else [])]
    if not any(fields):
        return
    rules = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _must(_libc().syscall(_LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), 0), "landlock_create_ruleset")
    try:
        for path in readable or ():
            _allow_reading(ruleset, path)
        _must(_libc().syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow_reading(ruleset: int, path: Path) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no right
    try:
        access = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        rule = struct.pack("=Qi", access, opened)
        _must(_libc().syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0), "landlock_add_rule")
    finally:
        os.close(opened)


def _restrict_calls(*, with_threads: bool) -> None:
    """Answer the denied system calls with EPERM. A call by another architecture's numbers ends the process."""
    machine = platform.machine()
    load, jump_eq, jump_ge, jump_set, give = 0x20, 0x15, 0x35, 0x45, 0x06
    deny, deny_unknown, allow, kill = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x7FFF0000, 0x80000000
    program: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4), (jump_eq, 1, 0, _ARCHITECTURES[machine]), (give, 0, 0, kill), (load, 0, 0, 0),
        (jump_ge, 0, 1, 0x40000000), (give, 0, 0, kill),  # x32: other numbers for the same calls
        (jump_eq, 0, 1, _CLONE3), (give, 0, 0, deny_unknown),  # its flags lie in memory; glibc then asks for clone
    ]
    for number in _DENIED[machine]:
        program += [(jump_eq, 0, 1, number), (give, 0, 0, deny)]
    if with_threads:  # the flags are the first argument, lower half at offset 16
        program += [(jump_eq, 0, 3, _CLONE[machine]), (load, 0, 0, 16), (jump_set, 1, 0, _CLONE_THREAD), (give, 0, 0, deny)]
    else:
        program += [(jump_eq, 0, 1, _CLONE[machine]), (give, 0, 0, deny)]
    program.append((give, 0, 0, allow))
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(buffer)))
    _must(_libc().prctl(_PR_SET_SECCOMP, 2, filter_, 0, 0), "PR_SET_SECCOMP")


def _limit(what: int, value: int) -> None:
    _, most = resource.getrlimit(what)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(what, (value, value))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
