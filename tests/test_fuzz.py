"""A few broken files of every outside format, as `make fuzz` makes thousands of them."""

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import all as formats
from fuzz.run import Found, fuzz, seed, show

INPUTS = 12
SLOW = ("video", "checkpoint", "animation")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Valid files of all formats, each of which its reader reads."""
    folder = tmp_path_factory.mktemp("seeds")
    seed(str(folder), [str(place) for place, _ in enumerate(formats.FORMATS)])
    return folder


def test_every_format_ends_in_success_or_a_reason(seeds):
    told = []
    for place, form in enumerate(formats.FORMATS):
        found = fuzz(place, seeds, 0, inputs=4 if form.name.startswith(SLOW) else INPUTS)
        if found.failures:
            told += show(found)
    assert not told, "\n".join(told)


def test_a_reader_that_hangs_crashes_or_raises_is_found():
    found = Found(formats.FORMATS[0].name)
    for number, how in enumerate(("read", "refused", "hang", "crash", "traceback", "memory")):
        found.add(number, {"how": how, "said": "x", "parsed": True, "grown": 0, "lines": []})
    found.add(6, {"how": "read", "said": "", "parsed": True, "grown": 10_000, "lines": []})
    assert [number for number, _, _ in found.failures] == [2, 3, 4, 5, 6] and found.inputs == 7


def test_the_command_names_formats_it_does_not_know():
    script = Path(__file__).parent / "fuzz" / "run.py"
    done = subprocess.run([sys.executable, script, "--format", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "settings (YAML)" in done.stderr
