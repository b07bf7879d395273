import pytest
from receipt_runs import sealed_run
from verifiers import Package, SingleFile


@pytest.fixture(scope="session")
def sealed(tmp_path_factory):
    """The files of a sealed run; copy before changing."""
    return sealed_run(tmp_path_factory.mktemp("runs") / "sealed")


@pytest.fixture(scope="session")
def single_file(tmp_path_factory):
    """The verifier that is one file."""
    verifier = SingleFile(tmp_path_factory.mktemp("verifier"))
    yield verifier
    verifier.close()


@pytest.fixture(params=["package", "single file"])
def verifier(request):
    """Each of the two verifiers: called with arguments, it returns exit status and output."""
    return Package() if request.param == "package" else request.getfixturevalue("single_file")
