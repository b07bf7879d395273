"""The compiled receiver under the address and undefined-behaviour sanitizers."""

import os
import subprocess
from pathlib import Path

import pytest

from helm_sentry import native

SOURCES = Path(native.__file__).parent
HERE = Path(__file__).parent
ROUNDS = os.environ.get("FUZZ_ROUNDS", "20000")


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    program = tmp_path_factory.mktemp("fuzz") / "harness"
    options = ["-std=gnu11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wall"]
    subprocess.run(
        ["cc", *options, f"-I{SOURCES}", "-o", program, HERE / "fuzz_receiver.c", "-ldl", "-lpthread"], check=True
    )
    return program


@pytest.mark.parametrize("seed", ["1", "20261121", "77"])
def test_texts_tables_memory_and_files(harness, seed, tmp_path):
    done = subprocess.run([harness, seed, ROUNDS, tmp_path], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_the_sanitizers_are_there(harness):
    """Positive control: the program is really built with them."""
    symbols = subprocess.run(["nm", harness], capture_output=True, text=True, check=True).stdout
    assert "__asan_init" in symbols
    assert "__ubsan_handle" in symbols
