"""The structure of the program, as its design states it."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "helm_sentry"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "_pb2" not in path.name  # generated
}
STANDARD_LIBRARY = __import__("sys").stdlib_module_names

# L0 vocabulary and facts, L1 pure, L2 effects, L3 the parts that wire them. A module imports its own layer or lower.
LAYERS = [
    ("helm_sentry", 0),
    ("helm_sentry.errors", 0),
    ("helm_sentry.operation", 0),
    ("helm_sentry.decision", 0),
    ("helm_sentry.abi", 0),
    ("helm_sentry.abi.libc", 2),
    ("helm_sentry.decode", 1),
    ("helm_sentry.policy", 1),
    ("helm_sentry.audit", 1),
    ("helm_sentry.audit.log", 2),
    ("helm_sentry.audit.segments", 2),
    ("helm_sentry.audit.follow", 2),
    ("helm_sentry.launch.filter", 1),
    ("helm_sentry.receipt", 1),
    ("helm_sentry.receipt.store", 2),
    ("helm_sentry.receipt.files", 2),
    ("helm_sentry.receipt.signer", 2),
    ("helm_sentry.receipt.archive", 2),
    ("helm_sentry.receipt.check", 2),
    ("helm_sentry.evidence", 1),
    ("helm_sentry.evidence.folder", 2),
    ("helm_sentry.evidence.conform", 3),
    ("helm_sentry.receipt.stored_tree", 2),
    ("helm_sentry.receipt.keyring", 2),
    ("helm_sentry.evidence.trial", 3),
    ("helm_sentry.launch", 2),
    ("helm_sentry.confine", 2),
    ("helm_sentry.intercept", 2),
    ("helm_sentry.intercept.interceptor", 1),
    ("helm_sentry.intercept.stops", 1),
    ("helm_sentry.broker", 2),
    ("helm_sentry.control", 2),
    ("helm_sentry.control.question", 1),
    ("helm_sentry.native", 2),
    ("helm_sentry.sensor", 2),
    ("helm_sentry.sensor.records", 1),
    ("helm_sentry.rpc", 2),
    ("helm_sentry.daemon", 2),
    ("helm_sentry.sensor.lsm_records", 1),
    ("helm_sentry.features", 2),
    ("helm_sentry.state", 2),
    ("helm_sentry.reporter", 2),
    ("helm_sentry.session", 3),
    ("helm_sentry.sensors", 3),
    ("helm_sentry.options", 1),
    ("helm_sentry.hosted", 3),
    ("helm_sentry.prepare", 3),
    ("helm_sentry.standby", 2),
    ("helm_sentry.standby.warm", 3),
    ("helm_sentry.refusal", 3),
    ("helm_sentry.standalone", 3),
    ("helm_sentry.cli", 3),
    ("helm_sentry.demo", 3),
    ("helm_sentry.attack", 3),
]
THIRD_PARTY = {
    "click": "helm_sentry.cli",
    "yaml": "helm_sentry.policy.document",
    "orjson": "helm_sentry.audit.codec",
    "nacl": "helm_sentry.receipt.ed25519",
    "hatchling": "helm_sentry.native.build",
    "cel_expr_python": "helm_sentry.policy.condition",
    "bcc": "helm_sentry.sensor.compiler",
    "grpc": "helm_sentry.rpc",
    "grpc_health": "helm_sentry.rpc",
    "grpc_reflection": "helm_sentry.rpc",
    "grpc_tools": "helm_sentry.rpc.generate",
    "prometheus_client": "helm_sentry.daemon.metrics",
}
FORBIDDEN_NAMES = {"utils", "helpers", "manager", "common", "misc"}


def layer(module: str) -> int:
    fitting = [(len(prefix), number) for prefix, number in LAYERS if f"{module}.".startswith(f"{prefix}.")]
    return max(fitting)[1]


def imports(path: Path) -> set[str]:
    """Names of the modules a file imports when it runs, those for type checking alone left out."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    upward = {name for name in imports(MODULES[module]) if name in MODULES and layer(name) > layer(module)}
    assert not upward


def test_policy_and_intercept_do_not_know_each_other() -> None:
    for here, there in (("policy", "intercept"), ("intercept", "policy")):
        for module, path in MODULES.items():
            if module.startswith(f"helm_sentry.{here}"):
                assert not {name for name in imports(path) if name.startswith(f"helm_sentry.{there}")}, module


@pytest.mark.parametrize("module", MODULES)
def test_third_party_packages_have_one_home(module: str) -> None:
    for name in imports(MODULES[module]):
        top = name.partition(".")[0]
        if top != "helm_sentry" and top not in STANDARD_LIBRARY:
            assert f"{module}.".startswith(f"{THIRD_PARTY[top]}."), f"{module} imports {name}"


def test_no_import_cycles() -> None:
    graph = {module: {name for name in imports(path) if name in MODULES} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for name in graph[module]:
                visit(name, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", MODULES)
def test_size_and_name(module: str) -> None:
    assert not set(module.split(".")) & FORBIDDEN_NAMES
    assert len(MODULES[module].read_text().splitlines()) <= 500


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno <= 60, f"{module}.{node.name}"


def test_syscall_numbers_live_in_abi_alone() -> None:
    for module, path in MODULES.items():
        if not module.startswith("helm_sentry.abi"):
            assert not re.search(r"__NR_|SYS_[a-z]", path.read_text()), module


def test_ctypes_lives_in_two_places() -> None:
    for module, path in MODULES.items():
        if module not in ("helm_sentry.abi.libc", "helm_sentry.native.library"):
            assert "ctypes" not in imports(path), module


def test_decide_does_no_io() -> None:
    for name in ("engine", "guard", "condition", "context", "compiler", "match", "pattern"):
        module = f"helm_sentry.policy.{name}"
        assert not imports(MODULES[module]) & {"os", "io", "time", "socket", "logging", "pathlib", "random"}, module


@pytest.mark.parametrize("module", MODULES)
def test_broad_excepts_are_where_they_must_be(module: str) -> None:
    """A handler for everything is either the fail-closed guard or clears up and raises again."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ExceptHandler) and (node.type is None or "Exception" in ast.unparse(node.type).split()):
            # The bundled agent is not part of the supervisor: it reports what its tools raise.
            guarded = module in {"helm_sentry.broker.broker", "helm_sentry.policy.engine", "helm_sentry.demo.agent"}
            reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            assert guarded or reraises, f"{module}:{node.lineno}"
