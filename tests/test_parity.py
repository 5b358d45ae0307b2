"""Every output of every reference case is compared by some test, and docs/parity.md says what came out."""

import json
import os
from pathlib import Path

import pytest
import reference_cases
from parity_table import STORED, cases, page, uncovered

ROOT = Path(__file__).resolve().parent.parent
FILES = {path for path in (ROOT / "tests").rglob("test_*.py") if "reference_cases import" in path.read_text()}


def test_the_stored_record_covers_every_output_of_every_case():
    record = json.loads(STORED.read_text())
    assert uncovered(record) == []
    assert (
        sorted(record) == cases() == sorted(path.name for path in reference_cases.REFERENCE.iterdir() if path.is_dir())
    )
    for case, outputs in record.items():
        for key, output in outputs.items():
            assert output["difference"] <= output["tolerance"], f"{case}/{key}"
            assert output["entries"] + output["left_out"] > 0, f"{case}/{key}"
            assert bool(output["left_out"]) == bool(output["reason"]), f"{case}/{key}"


def test_the_page_is_the_stored_record():
    assert (ROOT / "docs" / "parity.md").read_text() == page(json.loads(STORED.read_text())), "run: make parity"


def test_this_run_compared_every_output(request):
    """Looks at what the tests before it have compared; conftest.py puts this test last."""
    options = request.config.option
    ran = {Path(item.path) for item in request.session.items}
    whole = ran >= FILES and not (options.keyword or options.markexpr) and "PYTEST_XDIST_WORKER" not in os.environ
    if not whole or request.session.testsfailed:
        pytest.skip("only part of the tests ran, or some failed: the stored record is judged instead")
    assert uncovered(reference_cases.RECORD) == []


def test_the_comparison_fails_where_it_should():
    case = reference_cases.Case("vqgan_tiny")
    remembered = json.dumps(reference_cases.RECORD)
    encoder, codes = case.outputs["encoder"], case.outputs["codes"]
    for key, wrong in (
        ("encoder", encoder + 1.5 * case.tolerance("encoder")),
        ("encoder", encoder[:1]),
        ("encoder", encoder * float("nan")),
        ("codes", codes + (codes == codes.max())),
    ):
        with pytest.raises(AssertionError):
            case.check(key, wrong)
    case.check("encoder", encoder + 0.5 * case.tolerance("encoder"))
    with pytest.raises(AssertionError, match="reason"):
        case.check("codes", codes, leave_out=codes == codes)
    reference_cases.RECORD.clear()
    reference_cases.RECORD.update(json.loads(remembered))
