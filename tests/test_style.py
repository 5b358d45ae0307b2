"""What every file of the repository keeps to: short files and functions, no paths of one machine, no errors hidden."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(ROOT.glob("*.py"))
PARTS = [path for folder in ("tats", "kernels", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
OF_ONE_MACHINE = re.compile(r"(?<![\w.])/(?:home|root|work|Users|tmp|mnt|opt)/\w")


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*SCRIPTS, *PARTS, *TESTS], ids=name)
def test_a_file_is_short_and_knows_no_machine(path):
    found = lines(path)
    assert len(found) <= (60 if path in SCRIPTS else 400)
    assert [line for line in found if path != Path(__file__).resolve() and OF_ONE_MACHINE.search(line)] == []


@pytest.mark.parametrize("path", [*SCRIPTS, *PARTS], ids=name)
def test_functions_are_short_and_no_error_is_hidden(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, f"{node.name} at line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            caught = [each.id for each in ast.walk(node.type) if isinstance(each, ast.Name)] if node.type else ["all"]
            assert not {"all", "Exception"} & set(caught), f"line {node.lineno} catches everything"
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: errors outside tests are raised"
