import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from receipt_runs import KEY, OTHER_KEY, RUN, begin, decision, sealed_run

from helm_sentry.cli.verify import verify
from helm_sentry.decision import Verdict
from helm_sentry.errors import SentryError, UsageError, VerificationError
from helm_sentry.receipt.report import LOG


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "good.pub").write_bytes(KEY.public.export())
    (tmp_path / "other.pub").write_bytes(OTHER_KEY.public.export())
    (tmp_path / "helm-sentry" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(verify, arguments)


@pytest.fixture
def run(tmp_path):
    sealed_run(tmp_path / "run")
    return str(tmp_path / "run")


PROGRESS = """
import helm_sentry.cli.verify as command
command._SHORT = 0
command.verify()
"""


def test_a_long_log_shows_how_far_it_is(run):
    """On a terminal, and on nothing else."""
    master, slave = os.openpty()
    command = [sys.executable, "-c", PROGRESS, run]
    done = subprocess.run(command, stderr=slave, stdout=subprocess.PIPE, text=True, check=True)
    os.close(slave)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert done.stdout.startswith("ok: 6 records")
    assert "verifying" in shown and "100%" in shown
    silent = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "verifying" not in silent.stderr + silent.stdout


class TestResult:
    def test_sealed(self, call, run):
        result = call(run)
        assert result.output == (
            f"ok: 6 records, 2 denials, each with a receipt; signed by key {KEY.public.id} "
            "(not pinned: pass --public-key to pin)\n"
        )
        assert result.exit_code == 0

    def test_pinned(self, call, run):
        assert call(run, "--public-key", "other.pub", "--public-key", "good.pub").output.endswith("(trusted)\n")

    def test_by_id(self, call, tmp_path):
        sealed_run(tmp_path / "helm-sentry" / "runs" / RUN)
        assert call(RUN).output.startswith("ok: 6 records")

    def test_by_an_id_that_lies_here(self, call, tmp_path):
        sealed_run(tmp_path / RUN)
        assert call(RUN).output.startswith("ok: 6 records")
        (tmp_path / RUN).rename(tmp_path / "20261121-071503-ffffff")
        with pytest.raises(VerificationError, match=f"the directory of run `20261121-071503-ffffff` holds run `{RUN}`"):
            raise call("20261121-071503-ffffff").exception

    def test_json(self, call, run):
        printed = json.loads(call(run, "--json").output)
        assert (printed["state"], printed["records"], printed["trusted"]) == ("sealed", 6, False)

    def test_unsealed(self, call, tmp_path):
        (tmp_path / "run").mkdir()
        begin(str(tmp_path / "run")).append(decision(Verdict.DENY))
        assert isinstance(call("run").exception, VerificationError)
        assert json.loads(call("run", "--json").output)["state"] == "unsealed"
        assert call("run", "--allow-unsealed").output == (
            "ok, but unsealed: 2 records, of which a signature vouches for the first 0; "
            "1 denial, 1 without a receipt; signed by nobody\n"
        )

    def test_a_dry_run_is_called_one(self, call, tmp_path):
        sealed_run(tmp_path / "run", enforcing=False)
        assert call("run").output.endswith("; dry run: nothing was enforced\n")

    def test_other_files(self, call, run, tmp_path):
        (tmp_path / "run" / "notes").touch()
        assert call(run).stderr == "note: nothing vouches for notes\n"

    def test_nothing_in_it_steers_the_terminal(self, call, tmp_path):
        hostile = "\x1b]0;x\x07\nok: 9 records; signed by key 0 (trusted)\x9b2J"
        sealed_run(tmp_path / "run", degraded=[hostile])
        (tmp_path / "run" / hostile.replace("/", "")).touch()
        result = call("run")
        assert result.exit_code == 0
        assert "x1b]0;x" in result.stdout and "x1b]0;x" in result.stderr
        assert [text.rstrip("\n").isprintable() for text in (result.stdout, result.stderr)] == [True, True]


class TestFailure:
    def test_tampered(self, call, run, tmp_path):
        log = tmp_path / "run" / LOG
        log.write_bytes(log.read_bytes().replace(b"DENY", b"DONE", 1))
        error = call(run).exception
        assert isinstance(error, VerificationError)
        assert (error.exit_status, error.sequence) == (121, 2)
        printed = json.loads(call(run, "--json").output)
        assert (printed["state"], printed["record"], printed["error"]) == ("tampered", 2, str(error))

    def test_another_key(self, call, run):
        assert isinstance(call(run, "--public-key", "other.pub").exception, VerificationError)

    def test_another_run_under_this_id(self, call, tmp_path):
        sealed_run(tmp_path / "helm-sentry" / "runs" / "20261121-071503-ffffff")
        assert "holds run" in str(call("20261121-071503-ffffff").exception)

    @pytest.mark.parametrize("name", ["absent", "20261121-071503-ffffff"])
    def test_no_such_run(self, call, name):
        assert isinstance(call(name).exception, UsageError)

    def test_no_such_key(self, call, run):
        assert isinstance(call(run, "--public-key", "absent.pub").exception, SentryError)


def test_help_fits_80_columns(call):
    assert max(map(len, call("--help").output.splitlines())) <= 80
