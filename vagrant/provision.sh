#!/bin/sh
# Makes a Debian 12 ready for every test: `provision.sh CHECKOUT` as root, then a restart, then `provision.sh --check`.
set -eu

modules=/sys/kernel/security/lsm

if [ "$1" = --check ]; then
  mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security
  mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
  tr , '\n' <"$modules" | grep -qx bpf || { echo "bpf is not among the security modules: $(cat $modules)" >&2; exit 1; }
  [ -r /sys/kernel/btf/vmlinux ] || { echo "the kernel does not describe its types" >&2; exit 1; }
  echo "ready: Linux $(uname -r) with $(cat $modules)"
  exit 0
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends \
  make gcc libc6-dev python3-venv python3-dev python3-bpfcc busybox-static git nodejs tar gzip findutils strace

# Debian's kernel has bpf among its modules by default; other distributions' must be told.
mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security
if ! tr , '\n' <"$modules" | grep -qx bpf && [ -d /etc/default ]; then
  mkdir -p /etc/default/grub.d
  echo "GRUB_CMDLINE_LINUX=\"\$GRUB_CMDLINE_LINUX lsm=$(cat $modules),bpf\"" >/etc/default/grub.d/99-bpf-lsm.cfg
  update-grub
fi

make -C "$1" setup
