import os
import stat

import pytest
from receipt_runs import KEY, RUN, begin, contents, decision, sealed_run

from helm_sentry.audit import record
from helm_sentry.decision import Verdict
from helm_sentry.errors import AuditError, VerificationError
from helm_sentry.receipt.report import DENIALS, LOG, SEAL, State
from helm_sentry.receipt.signer import Signer
from helm_sentry.receipt.store import create_run, read_run
from helm_sentry.receipt.verify import verify_run


class TestRunDirectory:
    def test_is_the_owners_alone(self, tmp_path):
        sealed_run(tmp_path / "run")
        for parent, directories, names in os.walk(tmp_path / "run"):
            modes = {stat.S_IMODE(os.stat(os.path.join(parent, name)).st_mode) for name in directories + names}
            assert modes <= {0o600, 0o700}

    def test_files_are_canonical_lines(self, sealed):
        assert sealed["policy.json"] == b'{"name":"p"}\n'

    def test_is_not_made_twice(self, tmp_path):
        begin(str(tmp_path))
        with pytest.raises(FileExistsError):
            create_run(str(tmp_path), {}, {}, {}, KEY.public)

    def test_is_verified_from_the_disk(self, tmp_path):
        sealed_run(tmp_path / "run")
        report = verify_run(read_run(str(tmp_path / "run")), [KEY.public])
        assert (report.state, report.run, report.others) == (State.SEALED, RUN, ())

    def test_names_files_that_nothing_vouches_for(self, tmp_path):
        sealed_run(tmp_path / "run")
        for name in ("notes", "receipts/more", "receipts/\udcff"):
            (tmp_path / "run" / name).touch()
        assert verify_run(read_run(str(tmp_path / "run"))).others == (
            "notes",
            "receipts/%FF",
            "receipts/more",
        )

    @pytest.mark.parametrize("name", ["run.json", "policy.json", "plan.json", "public.key", LOG, DENIALS])
    @pytest.mark.parametrize("make", [None, os.mkfifo, os.mkdir], ids=["missing", "fifo", "directory"])
    def test_a_file_that_is_missing_or_none(self, tmp_path, name, make):
        sealed_run(tmp_path / "run")
        (tmp_path / "run" / name).unlink()
        if make:
            make(tmp_path / "run" / name)
        with pytest.raises(VerificationError, match=f"^{name}: (No such file|not a regular file)"):
            verify_run(read_run(str(tmp_path / "run")))


class TestSigner:
    def test_signs_while_the_run_goes_on(self, tmp_path):
        log = begin(str(tmp_path))
        signer = Signer(str(tmp_path), KEY)
        log.append(decision(Verdict.DENY))
        signer.notify()
        signer.close()
        assert contents(tmp_path)[DENIALS].count(b"\n") == 1
        assert SEAL not in contents(tmp_path)

    def test_the_seal_leaves_no_denial_out_although_nobody_notified(self, tmp_path):
        log = begin(str(tmp_path))
        signer = Signer(str(tmp_path), KEY)
        for _ in range(300):
            log.append(decision(Verdict.DENY))
        log.append(record.end(log.counts, signal="SIGKILL"))
        receipt = signer.seal(log.totals)
        assert contents(tmp_path)[SEAL] == receipt + b"\n"
        assert verify_run(read_run(str(tmp_path))).receipts == 300

    def test_only_what_was_not_allowed_gets_a_receipt(self, tmp_path):
        log = begin(str(tmp_path))
        signer = Signer(str(tmp_path), KEY)
        log.append(record.notice("X", '"verdict":"DENY"'))
        log.append(decision(Verdict.ALLOW))
        signer.close()
        assert contents(tmp_path)[DENIALS] == b""

    def test_lines_longer_than_a_read(self, tmp_path):
        log = begin(str(tmp_path))
        signer = Signer(str(tmp_path), KEY)
        log.append(record.notice("X", "x" * 3_000_000))
        log.append(decision(Verdict.DENY))
        log.append(record.end(log.counts, exit_status=0))
        signer.seal(log.totals)
        assert verify_run(read_run(str(tmp_path))).receipts == 1

    def test_a_run_without_an_end_is_not_sealed(self, tmp_path):
        log = begin(str(tmp_path))
        with pytest.raises(AuditError, match="no end record"):
            Signer(str(tmp_path), KEY).seal(log.totals)
        assert SEAL not in contents(tmp_path)

    def test_a_log_that_was_cut_under_the_signer_is_not_sealed(self, tmp_path):
        log = begin(str(tmp_path))
        log.append(record.end(log.counts, exit_status=0))
        os.truncate(tmp_path / LOG, os.path.getsize(tmp_path / LOG) - 1)
        with pytest.raises(AuditError, match="the log on the disk has"):
            Signer(str(tmp_path), KEY).seal(log.totals)
        assert SEAL not in contents(tmp_path)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
    def test_a_full_disk_is_an_error_and_no_seal(self, tmp_path):
        log = begin(str(tmp_path))
        (tmp_path / DENIALS).unlink()
        os.mknod(tmp_path / DENIALS, stat.S_IFCHR | 0o600, os.makedev(1, 7))  # the same device as /dev/full
        signer = Signer(str(tmp_path), KEY)
        log.append(decision(Verdict.DENY))
        log.append(record.end(log.counts, exit_status=0))
        with pytest.raises(AuditError, match="No space left"):
            signer.seal(log.totals)
        with pytest.raises(AuditError, match="No space left"):
            signer.notify()
        assert not os.path.exists(tmp_path / SEAL)

    def test_a_run_is_sealed_once(self, tmp_path):
        sealed_run(tmp_path / "run")
        with pytest.raises(AuditError):
            Signer(str(tmp_path / "run"), KEY).seal(record.Totals(records=0, counts={}, head="", size=0))
