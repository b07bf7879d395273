"""What the documents claim is there."""

import re
from pathlib import Path

import pytest

from helm_sentry.attack.catalogue import attacks

ROOT = Path(__file__).resolve().parents[1]
NAMED = re.compile(r"`((?:unit|kernel|attacks|vm|test_)[\w/]*\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("document", ["SECURITY.md", "docs/INVARIANTS.md", "docs/attacks.md"])
def test_named_tests_exist(document: str) -> None:
    named = NAMED.findall((ROOT / document).read_text())
    assert len(named) > 5
    for path, function in named:
        file = ROOT / "tests" / path
        assert file.exists(), f"{document}: {path}"
        assert not function or re.search(rf"^def {function}\(", file.read_text(), re.MULTILINE), f"{path}::{function}"


def test_every_claim_in_security_names_a_test_or_says_not_enforced() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "|---" not in line][1:]
    assert rows
    assert all(NAMED.search(row) for row in rows)
    limits = text.partition("## What is not enforced")[2]
    items = re.split(r"\n- ", limits)[1:]
    assert items
    assert all("Not enforced." in item for item in items)


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/**/*.md")) + [ROOT / "README.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_the_list_of_attacks_names_every_program_and_no_other() -> None:
    listed = re.findall(r"`([a-z]+_\w+)`", (ROOT / "docs" / "attacks.md").read_text())
    assert set(listed) == {attack.name for attack in attacks()}
