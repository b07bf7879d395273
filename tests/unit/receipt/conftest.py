import pytest
from receipt_runs import sealed_run


@pytest.fixture(scope="session")
def sealed(tmp_path_factory):
    """The files of a sealed run; copy before changing."""
    return sealed_run(tmp_path_factory.mktemp("runs") / "sealed")
