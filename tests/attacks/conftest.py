"""The attacks run with the harness of the kernel tests: as root, and as an ordinary user with an own installation."""

from tests.kernel.conftest import installation, pytest_generate_tests, sandbox

__all__ = ["installation", "pytest_generate_tests", "sandbox"]
