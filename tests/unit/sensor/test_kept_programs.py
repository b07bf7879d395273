"""Compiled programs run inside the kernel: they are taken only from where nobody else can write."""

import os
import threading
from pathlib import Path

import pytest

from helm_sentry.sensor.programs import read_kept

PROGRAMS = '{"maps": [], "programs": {}}'


def kept(place: Path) -> object:
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return read_kept(directory, "witness.json")
    finally:
        os.close(directory)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "witness"
    made.mkdir(mode=0o700)
    file = made / "witness.json"
    file.write_text(PROGRAMS)
    file.chmod(0o600)
    assert kept(made) == {"maps": [], "programs": {}}
    return made


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777 | 0o1000])
def test_not_from_a_directory_that_others_can_write(place: Path, mode: int) -> None:
    place.chmod(mode)
    assert kept(place) is None


@pytest.mark.parametrize("mode", [0o660, 0o606])
def test_not_from_a_file_that_others_can_write(place: Path, mode: int) -> None:
    (place / "witness.json").chmod(mode)
    assert kept(place) is None


def test_not_through_a_link(place: Path, tmp_path: Path) -> None:
    (place / "witness.json").rename(tmp_path / "elsewhere")
    (place / "witness.json").symlink_to(tmp_path / "elsewhere")
    assert kept(place) is None


def test_a_pipe_is_not_waited_for(place: Path) -> None:
    (place / "witness.json").unlink()
    os.mkfifo(place / "witness.json")
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.append(kept(place)), daemon=True)
    reader.start()
    reader.join(10)
    assert found == [None]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["", "witness.json"])
def test_not_what_belongs_to_another_user(place: Path, name: str) -> None:
    os.chown(place / name, 65534, 65534)
    assert kept(place) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "\\xff"])
def test_not_what_cannot_be_read(place: Path, text: str) -> None:
    (place / "witness.json").write_text(text)
    assert kept(place) is None
