"""Run a command as root in a throw-away guest: another Debian kernel on this machine's own files.

    guest.py [--kernel 6.1|6.12] [--timeout SECONDS] [--directory DIR] [--root DIR] [--network] -- COMMAND...

The guest is QEMU without hardware acceleration. Its root is this machine's, or a directory of it, read-only, under a
layer in memory: what the command writes is gone when it ends, and it can read whatever root can there, so run only
what you trust. To open a file takes a millisecond that way; files that are named by --copies are in the guest's memory
from the start, where it takes twenty times less. The guest has one processor unless it is asked for two, no network but loopback unless it is asked for, and
the Linux Security Modules of a Debian server with BPF among them.

With --systemd the command is a service of systemd, which is process 1 then; Debian's systemd must be installed.

Exit status: the command's; 124 when the guest did not end in time or its kernel panicked.

Needs Debian's qemu-system-x86 and busybox-static. The kernel's package is downloaded and unpacked, never installed, and
kept with what is made of it in `~/.cache/helm-sentry-guest`.
"""

import argparse
import gzip
import hashlib
import lzma
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

PACKAGES = {"6.1": "linux-image-amd64", "6.12": "linux-image-6.12-amd64"}
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_rng", "virtio_net", "fuse")
BUSYBOX = Path("/bin/busybox")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "helm-sentry-guest"
SHARE = "trans=virtio,version=9p2000.L,msize=512000"
SECURITY = "landlock,lockdown,capability,yama,bpf"
TIMED_OUT = 124
PROCESSORS = 2  # at most; a race needs two: one alone does not interrupt the few instructions that alternate

INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do $b insmod $module; done
$b mount -t 9p -o {SHARE},cache=loose,ro,noatime root /lower
$b mount -t tmpfs tmpfs /layer; $b mkdir /layer/upper /layer/work
$b mount -t overlay -o lowerdir=/copies:/lower,upperdir=/layer/upper,workdir=/layer/work overlay /new
for place in proc sys dev; do $b mount --move /$place /new/$place; done
$b mount -t tmpfs tmpfs /new/run; $b mkdir -p /new/run/guest /new/dev/pts /new/dev/shm
$b mount -t 9p -o {SHARE},cache=none exchange /new/run/guest
# A checkout beneath /tmp is kept there; all else in it is memory.
[ -e /new/run/guest/kept ] && {{ kept=/new$($b cat /new/run/guest/kept); $b mount --bind "$kept" /kept; }}
$b mount -t tmpfs tmpfs /new/tmp; $b chmod 1777 /new/tmp
[ -z "$kept" ] || {{ $b mkdir -p "$kept"; $b mount --move /kept "$kept"; }}
$b mount -t devpts devpts /new/dev/pts; $b mount -t tmpfs tmpfs /new/dev/shm
$b ln -s /proc/self/fd /new/dev/fd
for number in 0:stdin 1:stdout 2:stderr; do $b ln -s /proc/self/fd/${{number%:*}} /new/dev/${{number#*:}}; done
$b mount -t securityfs securityfs /new/sys/kernel/security
$b mount -t bpf bpf /new/sys/fs/bpf; $b mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
$b ip link set lo up; $b hostname guest
if [ -e /new/run/guest/network ]; then  # as QEMU's user network has it
  $b ip link set eth0 up; $b ip addr add 10.0.2.15/24 dev eth0; $b ip route add default via 10.0.2.2
  $b rm -f /new/etc/resolv.conf; echo nameserver 10.0.2.3 >/new/etc/resolv.conf
fi
# As switch_root does it, but that removes what is here, and with it the copies.
cd /new; $b mount --move . /; exec $b chroot . /bin/sh /run/guest/main
"""

SYSTEMD = """mkdir -p /run/systemd/system
cat > /run/systemd/system/guest.service <<'END'
[Service]
ExecStart=/bin/sh /run/guest/command
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
OOMScoreAdjust=-900
END
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-binfmt.service systemd-resolved.service \
  systemd-timesyncd.service systemd-networkd.service systemd-random-seed.service systemd-firstboot.service; do
  ln -s /dev/null /run/systemd/system/$unit; done
exec /lib/systemd/systemd --unit=guest.service --show-status=no
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", choices=PACKAGES, default="6.1")
    parser.add_argument("--timeout", type=int, default=300, help="seconds until the guest is ended")
    parser.add_argument("--processors", type=int, default=1, choices=range(1, PROCESSORS + 1))
    parser.add_argument("--memory", type=int, default=1500, help="MiB")
    parser.add_argument("--systemd", action="store_true", help="with systemd as process 1")
    parser.add_argument("--directory", default=os.getcwd(), help="where the command starts")
    parser.add_argument("--root", default="/", help="directory that is the guest's root")
    parser.add_argument("--network", action="store_true", help="reach what this machine reaches")
    parser.add_argument("--copies", type=Path, help="file with the names of those to copy into memory, one a line")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    kernel, initial = prepare(PACKAGES[options.kernel])
    return run(kernel, initial, options)


def prepare(meta_package: str) -> tuple[Path, Path]:
    """Return the kernel and the initial file system, made anew when the package has a newer version."""
    listed = subprocess.run(["apt-cache", "depends", meta_package], check=True, capture_output=True, text=True).stdout
    found = re.search(r"Depends: (linux-image-\S+)", listed)
    if not found:
        raise SystemExit(f"guest.py: there is no package {meta_package} here; run `apt-get update`")
    package = found[1]
    cache = CACHE
    version = hashlib.sha256(repr((INIT, MODULES)).encode()).hexdigest()[:8]
    kernel, initial = cache / f"{package}.kernel", cache / f"{package}.{version}.initial"
    if initial.exists():
        return kernel, initial
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        os.chmod(work, 0o755)
        subprocess.run(["apt-get", "download", "-q", package], check=True, cwd=work, stdout=sys.stderr)
        (archive,) = Path(work).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, work], check=True)
        (image,) = Path(work).glob("boot/vmlinuz-*")
        kernel.write_bytes(uncompressed(image.read_bytes()))
        for section, suffix in ((".BTF", "types"), (".notes", "notes")):
            (cache / f"{package}.{suffix}").write_bytes(section_of(kernel.read_bytes(), section))
        (modules,) = Path(work).glob("lib/modules/*")
        made = initial_files(Path(work) / "initial", modules)
        made.rename(initial)
    return kernel, initial


def uncompressed(image: bytes) -> bytes:
    """Return the ELF file in a bzImage, which QEMU starts directly: seconds less without hardware acceleration.

    Offsets are those of Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length.
    """
    start, length = struct.unpack_from("<II", image, 0x248)
    start += ((image[0x1F1] or 4) + 1) * 512
    payload = image[start : start + length]
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload[:-4])
    for magic, program in ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\x02\x21\x4c\x18", "lz4")):
        if payload.startswith(magic):
            return subprocess.run([program, "-dc"], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
    raise SystemExit("guest.py: the kernel is compressed in a way that is not known here")


def section_of(image: bytes, name: str) -> bytes:
    """Return a section of an ELF file of 64 bits (elf(5)): what the kernel will show in /sys/kernel of itself."""
    start, size, count, names = struct.unpack_from("<Q10xHHH", image, 0x28)
    headers = [struct.unpack_from("<II8x8xQQ", image, start + place * size) for place in range(count)]
    texts = headers[names][2]
    for at, _, offset, length in headers:
        if image[texts + at : image.index(b"\0", texts + at)].decode() == name:
            return image[offset : offset + length]
    raise SystemExit(f"guest.py: the kernel has no section {name}")


def initial_files(tree: Path, modules: Path) -> Path:
    """Return an archive with busybox, the modules that reach the root, and what to do with them."""
    for name in ("bin", "proc", "sys", "dev", "modules", "lower", "layer", "new", "copies", "kept"):
        (tree / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    for position, (name, contents) in enumerate(with_dependencies(modules)):
        (tree / "modules" / f"{position:02}-{name}").write_bytes(contents)
    made = tree.with_suffix(".cpio")
    with open(made, "wb") as file:
        archive(tree, [str(path.relative_to(tree)) for path in [tree, *sorted(tree.rglob("*"))]], file)
    return made


def archive(directory: Path, names: list[str], file: IO[bytes]) -> None:
    """Append an archive of what is in a directory to a file; the kernel unpacks all that it finds in one."""
    command = [BUSYBOX, "cpio", "-o", "-H", "newc"]
    text = "\n".join(names).encode()
    subprocess.run(command, input=text, stdout=file, stderr=subprocess.DEVNULL, cwd=directory, check=True)


def with_copies(initial: Path, named: Path, exchange: Path) -> Path:
    """Return the initial file system with copies of files for the lower layer of the guest's root."""
    wanted = {parent for name in named.read_text().splitlines() for parent in (Path(name), *Path(name).parents)}
    (exchange / "copies").symlink_to("/")
    made = exchange / "initial"
    with open(made, "wb", buffering=0) as file:
        file.write(initial.read_bytes())
        archive(exchange, [f"copies{path}" for path in sorted(wanted - {Path("/")})], file)
    (exchange / "copies").unlink()
    return made


def with_dependencies(directory: Path) -> list[tuple[str, bytes]]:
    """Return the wanted modules and what each depends on, in the order of loading; what is not there is built in."""
    files = {path.name.partition(".ko")[0].replace("-", "_"): path for path in directory.rglob("*.ko*")}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered or name not in files:
            return
        raw = files[name].read_bytes()
        contents = lzma.decompress(raw) if files[name].suffix == ".xz" else raw
        depends = re.search(rb"\0depends=([^\0]*)\0", contents)
        for other in depends[1].decode().split(",") if depends else ():
            add(other.replace("-", "_"))
        ordered[name] = contents

    for name in MODULES:
        add(name)
    return list(ordered.items())


def run(kernel: Path, initial: Path, options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="helm-sentry-guest-", dir="/var/tmp") as name:
        exchange = Path(name)
        if Path(options.directory).resolve().is_relative_to("/tmp"):
            (exchange / "kept").write_text(str(Path(options.directory).resolve()))
        if options.network:
            (exchange / "network").touch()
        if options.copies:
            initial = with_copies(initial, options.copies, exchange)
        command = (
            "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8\n"
            "export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SENTRY_GUEST=1\n"
            f"cd {shlex.quote(options.directory)} && {shlex.join(options.command)}\n"
            "echo $? > /run/guest/status; sync; echo o > /proc/sysrq-trigger; while :; do :; done\n"
        )
        (exchange / "command").write_text(command)
        (exchange / "main").write_text(SYSTEMD if options.systemd else command)
        try:
            subprocess.run(machine(kernel, initial, exchange, options), timeout=options.timeout, check=False)
        except subprocess.TimeoutExpired:
            print(f"guest.py: the guest did not end in {options.timeout} s", file=sys.stderr)
        status = exchange / "status"
        return int(status.read_text()) if status.exists() else TIMED_OUT


def machine(kernel: Path, initial: Path, exchange: Path, options: argparse.Namespace) -> list[str | Path]:
    shares = [
        f"local,path={options.root},mount_tag=root,security_model=none,readonly=on,multidevs=remap",
        f"local,path={exchange},mount_tag=exchange,security_model=none",
    ]
    network = "user,model=virtio-net-pci" if options.network else "none"
    # A processor without AVX, whose wide registers cost emulation a quarter more.
    words: list[str | Path] = [
        *("qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "Nehalem", "-smp", str(options.processors)),
        *("-m", str(options.memory)),
        *("-display", "none", "-nodefaults", "-nic", network, "-no-reboot", "-serial", "stdio"),
        *("-kernel", kernel, "-initrd", initial),
        *("-append", f"console=ttyS0 panic=-1 quiet lsm={SECURITY} mitigations=off no_timer_check"),
        *(word for share in shares for word in ("-virtfs", share)),
        *("-device", "virtio-rng-pci"),
    ]
    return words


if __name__ == "__main__":
    sys.exit(main())
