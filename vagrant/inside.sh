#!/bin/sh
# What the job does inside the machine: `inside.sh CHECKOUT RESULTS` as root. Exit status: that of the tests.
set -u
cd "$1"
mkdir -p "$2"
sh vagrant/provision.sh --check | tee "$2/machine.txt"
status=0
SENTRY_GUEST=1 .venv/bin/python -m pytest -q -s -p no:cacheprovider tests/vm --junit-xml="$2/vm.xml" || status=1
.venv/bin/helm-sentry attack --tier kernel --seconds 1 --json >"$2/attacks.json" || status=1
.venv/bin/python benchmarks/quick.py --json "$2/quick.json" --gate benchmarks/baseline.json || status=1
chmod -R a+rX "$2"
exit "$status"
