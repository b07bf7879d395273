# Set up, try, test and measure Helm Sentry. `make help` lists the targets.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
STAMP := $(VENV)/.installed

.PHONY: help setup demo test cpython-tests lint bench bench-quick bench-gate bench-baseline bench-charts clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## install what is missing: Debian packages, a virtual environment, the package

# The environment sees Debian's packages, because BCC is one of them (PyPI's `bcc` is something else).
$(STAMP): pyproject.toml $(wildcard helm_sentry/native/*.c helm_sentry/native/*.h)
	@if command -v apt-get >/dev/null && ! dpkg -s python3-venv python3-bpfcc gcc libc6-dev >/dev/null 2>&1; then \
	  $(SUDO) apt-get update -q && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
	    python3-venv python3-bpfcc gcc libc6-dev; fi
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(BIN)/pip install -q --upgrade-strategy only-if-needed -e '.[test]'
# As other ways to install do: with PYTHONDONTWRITEBYTECODE set, every start of a checkout would compile it again.
	$(BIN)/python -m compileall -q helm_sentry
	@touch $@

demo: setup ## run the bundled agent under a policy and verify its receipts
	$(BIN)/helm-sentry demo

test: setup test-programs lint policy-tests ## run every test
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal --ignore tests/unit/policy

.PHONY: policy-tests
policy-tests: setup ## the tests of policy/, which must cover every branch of it
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal tests/unit/policy \
	  --cov=helm_sentry.policy --cov-branch --cov-fail-under=100 --cov-report=term-missing:skip-covered

.PHONY: test-programs
# Programs that the tests run under the supervisor; a machine that has them already installs nothing.
test-programs:
	@missing=""; for p in git nodejs make tar gzip findutils grep sed procps strace; do \
	  dpkg -s $$p >/dev/null 2>&1 || command -v $${p%js} >/dev/null || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then $(SUDO) apt-get update -q && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; fi

.PHONY: vm-test vm-quick vm-packages plans
# Other kernels than this machine's, in QEMU guests without hardware acceleration, all at once (tests/vm/).
VM_KERNELS ?= 6.1 6.12
vm-test: setup vm-packages ## what needs other kernels: BPF LSM under Debian's 6.1 and 6.12, in throw-away guests
	$(PYTHON) tests/vm/every_kernel.py 2 tests/vm $(VM_KERNELS)

vm-quick: setup vm-packages ## the part of it without whole runs: random operations, kill -9, overlayfs, nested groups
	$(PYTHON) tests/vm/every_kernel.py 1 tests/vm/test_lsm.py $(VM_KERNELS)

.PHONY: vm-clock vm-units
vm-clock: setup vm-packages ## clocks that are set while an agent runs, in a guest of their own
	$(PYTHON) tests/vm/guest.py --timeout 700 -- $(BIN)/python -m pytest -q -p no:cacheprovider tests/vm/clock_jumps.py </dev/null

vm-units: setup vm-packages ## the systemd units, in a guest whose process 1 is systemd
	$(PYTHON) tests/vm/guest.py --systemd --timeout 1200 -- $(BIN)/python tests/vm/units.py </dev/null

plans: setup vm-packages ## write docs/plans.md: who holds what of one policy on four hosts
	$(BIN)/python docs/plans.py

VM_PACKAGES := qemu-system-x86 busybox-static
vm-packages:
	@if ! dpkg -s $(VM_PACKAGES) >/dev/null 2>&1 || ! apt-cache show linux-image-amd64 >/dev/null 2>&1; then \
	  $(SUDO) apt-get update -q && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(VM_PACKAGES) || \
	  { echo "vm-test: $(VM_PACKAGES) cannot be installed from here, so no guest can be started" >&2; exit 1; }; fi

.PHONY: differential
differential: setup ## random file, socket and exec calls, natively and supervised: no difference (20 minutes)
	SENTRY_DIFFERENTIAL_FILES=100000 SENTRY_DIFFERENTIAL_SOCKETS=10000 SENTRY_DIFFERENTIAL_EXECS=10000 \
	  $(BIN)/python -m pytest -q tests/kernel/test_differential_files.py tests/kernel/test_differential_sockets.py \
	  tests/kernel/test_differential_exec.py

cpython-tests: setup ## CPython's own tests, natively and supervised: the same verdicts (20 minutes)
	$(BIN)/python tests/cpython/compare.py

lint: setup ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/mypy

IN_TIER := $(if $(TIER),HELM_SENTRY_TIER=$(TIER))
.PHONY: kernel-tests
kernel-tests: setup test-programs ## the tests with real programs and system calls; TIER=ptrace: traced (10 minutes)
	$(IN_TIER) $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal tests/kernel

.PHONY: attack
attack: setup ## try to get past the policy, as root and as an ordinary user: every attack, long races (TIER=ptrace: traced)
	$(IN_TIER) HELM_ATTACK_SECONDS=$${HELM_ATTACK_SECONDS:-2} $(BIN)/python -m pytest -q -s tests/attacks/test_suite.py -k gets_through

.PHONY: control-plane control-churn
control-plane: setup test-programs ## the daemon with figures: updates in 50 ms, 1,000 under load, 500 questions, floods, a client in node
	HELM_SENTRY_TEST_UPDATES=1000 HELM_SENTRY_TEST_QUESTIONS=500 HELM_SENTRY_TEST_WORST_MS=$${HELM_SENTRY_TEST_WORST_MS:-50} \
	  $(BIN)/python -m pytest -v -s tests/kernel/test_rpc.py tests/kernel/test_approvals.py tests/kernel/test_remote_commands.py \
	  -k "update or mixture or halves or wait or terminal or elsewhere or flood or reads or node or watched or certificate"

control-churn: setup ## 20 agents that come and go for 5 minutes under one daemon: nothing is left behind
	HELM_SENTRY_TEST_CHURN=300 HELM_SENTRY_TEST_AGENTS=20 $(BIN)/python -m pytest -v -s tests/kernel/test_churn.py

EVIDENCE := $(BIN)/python -m pytest -q -s -p no:cacheprovider
.PHONY: evidence
evidence: setup test-programs ## what docs/evidence.md says, with its figures, one after the other (15 minutes)
	$(EVIDENCE) tests/unit/audit tests/unit/receipt/test_keys.py tests/unit/receipt/test_envelope.py tests/unit/evidence
	HELM_SENTRY_TEST_MUTATIONS=10000 $(EVIDENCE) tests/unit/receipt -k "not power"
	HELM_SENTRY_TEST_MOMENTS=200 $(EVIDENCE) tests/unit/receipt/test_power_loss.py
	HELM_SENTRY_TEST_MOMENTS=200 $(EVIDENCE) tests/kernel/test_supervisor_death.py -k random_moments
	$(EVIDENCE) tests/kernel/test_log_failures.py tests/kernel/test_durable.py tests/kernel/test_evidence.py tests/kernel/test_conform.py
	@$(BIN)/python -m compileall -q helm_sentry
	$(BIN)/python benchmarks/verification.py
	$(BIN)/python benchmarks/signing.py
	$(BIN)/helm-sentry conform

bench: setup ## every benchmark, with figures and charts in build/bench
	@$(BIN)/pip install -q -e '.[bench]' && $(BIN)/python -m compileall -q helm_sentry && mkdir -p build/bench
	for question in quick first_table unmediated operations threads workloads memory signing verification peers; do \
	  $(BIN)/python benchmarks/$$question.py --json build/bench/$$question.json --chart build/bench/$$question.svg || exit 1; done

bench-quick: setup ## added cost per open and start-up time, side by side with native runs
	@$(BIN)/python -m compileall -q helm_sentry  # as an installation is
	$(BIN)/python benchmarks/quick.py

GATED := quick unmediated threads
bench-gate: setup ## fail if anything is a quarter slower, by the ratio to the floor, than benchmarks/baseline.json says
	@$(BIN)/python -m compileall -q helm_sentry
	for question in $(GATED); do $(BIN)/python benchmarks/$$question.py --gate benchmarks/baseline.json || exit 1; done

bench-baseline: setup ## measure on a quiet machine what bench-gate is to compare with
	@$(BIN)/python -m compileall -q helm_sentry
	for question in $(GATED); do $(BIN)/python benchmarks/$$question.py --baseline benchmarks/baseline.json || exit 1; done

bench-charts: setup ## measure and draw the charts in docs/charts
	@$(BIN)/python -m compileall -q helm_sentry && mkdir -p docs/charts
	for question in quick first_table operations threads unmediated workloads memory peers; do \
	  $(BIN)/python benchmarks/$$question.py --json docs/charts/$$question.json --chart docs/charts/$$question.svg || exit 1; done

clean: ## remove what setup and test made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
