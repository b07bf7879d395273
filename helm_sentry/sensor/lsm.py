"""The kernel tier by BPF programs at the hooks of security modules: the static part of a policy, decided in the kernel.

An agent is a control group with all beneath it. There are two generations of rules; one number says which decides, so a
policy is replaced in one step. Programs and maps are pinned: when the supervisor dies they go on to deny, and when
nobody reads the ring buffer any more, they deny everything.
"""

import contextlib
import os
import shutil
import struct
from collections.abc import Iterator, Mapping

from helm_sentry.abi import flags, libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.errors import FeatureError
from helm_sentry.operation import Kind
from helm_sentry.policy.lower import Lowered
from helm_sentry.sensor import btf, programs
from helm_sentry.sensor import lsm_records as records
from helm_sentry.sensor.btf import Types
from helm_sentry.sensor.lsm_records import Event, Tables
from helm_sentry.sensor.programs import Loaded, Source
from helm_sentry.sensor.ring import RingBuffer, possible_processors

EVENT_BYTES = 1 << 22
"""Size of the ring buffer: some twenty thousand decisions."""

PINS = "/sys/fs/bpf/helm-sentry"
"""Where programs and maps of runs are pinned, a directory for each."""

_SLOTS = 8
_EDGES, _NETWORKS = 1 << 16, 1 << 14
_FILES = tuple(f"lsm_{family}.bpf.c" for family in ("open", "names", "change", "exec", "socket", "process", "kernel"))
_HEADERS = ("lsm.h", "lsm_judge.h")
_FIRST = bytes(4)
# fmt: off
_OFFSETS = (
    "cgroup.kn", "cgroup.self", "cgroup_subsys_state.parent", "css_set.dfl_cgrp", "dentry.d_hash", "dentry.d_inode",
    "dentry.d_name", "dentry.d_parent", "dentry.d_sb", "file.f_flags", "file.f_inode", "file.f_path",
    "hlist_bl_node.pprev", "iattr.ia_valid", "inode.i_ino", "inode.i_mode", "kernfs_node.id", "linux_binprm.file",
    "mnt_namespace.ns", "mount.mnt", "mount.mnt_mountpoint", "mount.mnt_ns", "mount.mnt_parent", "msghdr.msg_flags",
    "msghdr.msg_name", "msghdr.msg_namelen", "ns_common.inum", "path.dentry", "path.mnt", "qstr.name",
    "sock.sk_protocol", "sock_common.skc_family", "sock_common.skc_num", "sock_common.skc_rcv_saddr",
    "sock_common.skc_v6_rcv_saddr", "socket.sk", "super_block.s_dev", "task_struct.cgroups", "task_struct.cred",
    "task_struct.pid", "task_struct.real_cred", "unix_sock.addr", "unix_sock.path", "vfsmount.mnt_flags",
    "vfsmount.mnt_root", "vm_area_struct.vm_file",
)
# fmt: on


def load(cache: str) -> Loaded:
    """Load the programs and attach them; they watch nobody yet.

    Args:
        cache: directory for compiled programs, created if it is not there.

    Raises:
        FeatureError: this host does not allow it; the text says what is missing.
    """
    if not _active():
        raise FeatureError("the kernel was started without bpf among its security modules")
    return programs.load(cache, source(possible_processors()))


def source(processors: int) -> Source:
    """Return what the programs are made of, for a machine that may have so many processors."""
    return Source("lsm", _FILES, _HEADERS, _sizes(processors), _offsets)


def refused() -> str:
    """Return why the kernel takes no program at a hook, found by loading one that does nothing; empty when it does."""
    try:
        if not _active():
            raise FeatureError("the kernel was started without bpf among its security modules")
        hook = btf.read().function("bpf_lsm_file_open")
        code = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # return 0
        os.close(libc.bpf_load(code, "nothing", flags.BPF_PROG_TYPE_LSM, flags.BPF_LSM_MAC, hook))
    except (FeatureError, OSError) as error:
        return str(error)
    return ""


def unavailable(cache: str) -> str:
    """Return why there can be no such programs here, found by loading them; empty when there can."""
    try:
        load(cache).close()
    except FeatureError as error:
        return str(error)
    return ""


class Enforcer:
    """The programs of one run.

    Args:
        loaded: the programs, which it takes over.
        pins: directory in a bpf file system to keep them in; created.
        lossy: go on when the ring buffer is full, and count, instead of denying.
    """

    def __init__(self, loaded: Loaded, pins: str, *, lossy: bool = False) -> None:
        self._loaded, self._pins = loaded, pins
        self._generation = 1
        self._rules: list[tuple[str, ...]] = [(), ()]
        self._keys: list[Tables | None] = [None, None]
        self._events = RingBuffer(loaded.maps["events"], EVENT_BYTES)
        self._counts_size = possible_processors() * records.COUNTS.size
        self._lossy = lossy
        try:
            os.makedirs(pins, mode=0o700)
        except OSError as error:
            raise FeatureError(f"nothing can be pinned at `{pins}`: {error.strerror}") from error
        for name, descriptor in (*loaded.maps.items(), *loaded.links.items()):
            libc.bpf_pin(descriptor, os.path.join(pins, name))

    def enforce(self, lowered: Lowered, granted: frozenset[Kind] = frozenset()) -> None:
        """Put a policy in force, in place of the one before, in one step.

        Args:
            lowered: the policy as far as the kernel holds it.
            granted: kinds that the broker holds and lets the kernel carry out.
        """
        new = 1 - self._generation
        tables = records.tables(lowered, new, native().loaders, granted)
        self._write(tables, new)
        self._rules[new] = tables.rules
        self._set("active", 0, new.to_bytes(4, "little"))
        libc.wait_for_readers()  # nobody decides by the old generation any more
        self._forget(1 - new)
        self._keys[new], self._generation = tables, new

    def watch(self, cgroup: str) -> None:
        """Hold the processes of a control group of version 2, and of all beneath it, to the policy.

        Args:
            cgroup: its directory.
        """
        namespace = os.stat("/proc/self/ns/mnt").st_ino
        number = os.stat(cgroup).st_ino
        self._set("control", 0, records.CONTROL.pack(_rename_lock(), number, namespace, self._lossy))
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._set("agents", 0, directory.to_bytes(4, "little"))
        finally:
            os.close(directory)

    def events(self) -> Iterator[Event]:
        """Yield the decisions since the last look."""
        for data in self._events.records():
            yield records.event(data, (self._rules[0], self._rules[1]))

    def counts(self) -> tuple[int, int, int, int]:
        """Return how many operations were decided and denied, how many decisions were lost, and denied for crowding."""
        data = libc.bpf_map_lookup(self._loaded.maps["counts"], _FIRST, self._counts_size)
        decided, denied, lost, crowded = (sum(column) for column in zip(*records.COUNTS.iter_unpack(data), strict=True))
        return decided, denied, lost, crowded

    def close(self) -> None:
        """Take the programs out of the kernel."""
        self._events.close()
        self._loaded.close()
        # The last hold on a program. Linux 6.1 lets go of one at a time, a tenth of a second each.
        shutil.rmtree(self._pins)

    def _write(self, tables: Tables, generation: int) -> None:
        for place, treatment in enumerate(tables.treatments):
            self._set("treatments", generation * len(records.Number) + place, treatment.to_bytes(4, "little"))
        for place, found in enumerate(tables.families):
            self._set("families", generation * records.FAMILY_ROWS + place, found)
        for name, entries in self._hashed(tables):
            for key, value in entries.items():
                libc.bpf_map_update(self._loaded.maps[name], key, value)

    def _forget(self, generation: int) -> None:
        old = self._keys[generation]
        for name, entries in self._hashed(old) if old else ():
            for key in entries:
                libc.bpf_map_delete(self._loaded.maps[name], key)
        self._keys[generation] = None

    @staticmethod
    def _hashed(tables: Tables) -> tuple[tuple[str, Mapping[bytes, bytes]], ...]:
        return ("edges", tables.edges), ("networks", tables.networks)

    def _set(self, name: str, place: int, value: bytes) -> None:
        libc.bpf_map_update(self._loaded.maps[name], place.to_bytes(4, "little"), value)


def release(pins: str) -> None:
    """Take the programs of a run whose supervisor died out of the kernel."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(pins)


def _active() -> bool:
    try:
        with open("/sys/kernel/security/lsm", encoding="ascii") as file:
            return "bpf" in file.read().strip().split(",")
    except OSError:
        return True  # not mounted: the attempt will tell


def _rename_lock() -> int:
    """Return where the kernel keeps the count of renames, by which it is seen that a path changed."""
    with open("/proc/kallsyms", encoding="ascii") as file:
        for line in file:
            if line.rstrip().endswith(" rename_lock"):
                return int(line.split()[0], 16)
    raise FeatureError("the kernel does not tell where its lock for renames is")


def _sizes(processors: int) -> dict[str, int]:
    return {
        "SLOTS": _SLOTS,
        "PROCESSORS": processors,
        "EVENT_PAGES": EVENT_BYTES // os.sysconf("SC_PAGE_SIZE"),
        "EDGES": _EDGES,
        "NETWORKS": _NETWORKS,
        "RULE_DEPTH": records.RULE_DEPTH,
    }


def _offsets(kernel: Types) -> Mapping[str, int]:
    found = {name.replace(".", "_").upper(): kernel.offset(*name.split(".")) for name in _OFFSETS}
    try:
        kernel.offset("fown_struct", "file")
        found["FILE_F_OWNER"] = 0  # since Linux 6.12, and no part of the file any more
    except FeatureError:
        found["FILE_F_OWNER"] = kernel.offset("file", "f_owner")
    try:
        found["BACKING_FILE_USER_PATH"] = kernel.offset("backing_file", "user_path")
    except FeatureError:
        found["BACKING_FILE_USER_PATH"] = 0  # there the file of a layer has the path itself
    arch = native()
    found["PT_REGS_NUMBER"] = kernel.offset("pt_regs", "orig_ax" if arch.name == "x86_64" else "syscallno")
    found["NR_MKNODAT"] = syscalls.number("mknodat", arch)
    found["NR_MKNOD"] = syscalls.number("mknod" if arch.name == "x86_64" else "mknodat", arch)  # arm64 has the one only
    # Since Linux 6.9 the hook is told first how ids are mapped.
    return found | {"IATTR_ARGUMENT": kernel.parameters("bpf_lsm_inode_setattr") - 1}
