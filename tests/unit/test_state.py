import os
import stat

import pytest

from helm_sentry import state
from helm_sentry.errors import UsageError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return tmp_path


class TestStateDirectory:
    @pytest.mark.parametrize("value", [None, "", "relative"])
    def test_default(self, home, monkeypatch, value):
        if value is not None:
            monkeypatch.setenv("XDG_STATE_HOME", value)
        assert state.state_directory() == str(home / ".local" / "state" / "helm-sentry")

    def test_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
        assert state.state_directory() == "/elsewhere/helm-sentry"
        assert state.key_directory() == "/elsewhere/helm-sentry/keys"


class TestRuns:
    def test_id(self):
        name = state.new_run_id(1_795_245_303)
        assert name.startswith("20261121-071503-")
        assert state.is_run_id(name)
        assert state.new_run_id(0) != state.new_run_id(0)

    @pytest.mark.parametrize("name", ["", "20261121-071503", "20261121-071503-AB12CD", "../20261121-071503-ab12cd"])
    def test_other_names_are_no_ids(self, name):
        assert not state.is_run_id(name)

    def test_a_new_run_is_closed_to_others(self):
        before = os.umask(0)
        try:
            path = state.new_run("20261121-071503-ab12cd")
        finally:
            os.umask(before)
        for directory in (path, os.path.dirname(path), state.state_directory()):
            assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700

    def test_a_run_is_made_once(self):
        state.new_run("20261121-071503-ab12cd")
        with pytest.raises(FileExistsError):
            state.new_run("20261121-071503-ab12cd")

    def test_is_found_by_id_and_by_path(self):
        path = state.new_run("20261121-071503-ab12cd")
        assert state.run_directory("20261121-071503-ab12cd") == path == state.run_directory(path)

    def test_the_latest_is_the_one_begun_last(self):
        last = state.new_run("20261121-071503-ab12cd")
        state.new_run("20261120-235959-ffffff")
        os.mkdir(os.path.join(os.path.dirname(last), "stand-in"))
        assert state.run_directory("latest") == last

    def test_before_the_first_run_there_is_no_latest(self):
        with pytest.raises(UsageError, match="there are no runs"):
            state.run_directory("latest")

    @pytest.mark.parametrize("name", ["20261121-071503-ab12cd", "absent"])
    def test_no_such_run(self, name):
        with pytest.raises(UsageError, match=f"there is no run `{name}`"):
            state.run_directory(name)


def test_first_runs_that_start_together_make_the_directories_together(tmp_path, monkeypatch):
    for place in range(60):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / str(place)))
        wait, go = os.pipe()
        runs = []
        for _ in range(4):
            if (run := os.fork()) == 0:
                os.close(go)
                os.read(wait, 1)
                try:
                    state.new_run(state.new_run_id())
                    os._exit(0)
                finally:
                    os._exit(1)
            runs.append(run)
        os.close(go)  # all at once
        os.close(wait)
        assert [os.waitpid(run, 0)[1] for run in runs] == [0] * 4
        assert len(os.listdir(state.runs_directory())) == 4
