#!/bin/sh
# What `make vm-test` runs in each guest, as root, from the checkout. $1: programs compiled ahead; then a command.
mkdir -p /var/lib/helm-sentry && cp -r "$1" /var/lib/helm-sentry/witness && chmod -R go= /var/lib/helm-sentry
shift
[ $# -gt 0 ] && exec "$@"

# Of the tests that other kernels need, and of the attacks, as many as software emulation allows in a few minutes.
export WITNESS_OPENS=300 WITNESS_FORKS=20 WITNESS_EXECS=5
exec .venv/bin/python -m pytest -q -s --color=no -p no:cacheprovider --durations=8 \
  tests/vm "tests/kernel/test_witness.py" -k "tests/vm or (equal and root)"
