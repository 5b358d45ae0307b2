"""A few broken files of every outside format, as `make fuzz` makes thousands of them."""

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import all as formats
from fuzz.run import Child, Found, seed, show, told

INPUTS = 5


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    """A process that reads, and valid files of all formats, each of which its reader has read."""
    folder = tmp_path_factory.mktemp("seeds")
    seed(str(folder), [str(place) for place, _ in enumerate(formats.FORMATS)])
    child = Child(folder)
    child.start()
    yield child
    child.end()


@pytest.mark.parametrize("place", range(len(formats.FORMATS)), ids=[form.name for form in formats.FORMATS])
def test_broken_files_end_in_success_or_a_reason(child, place):
    found = Found(formats.FORMATS[place].name)
    for number in range(INPUTS):
        found.add(number, child.ask(place, number, trace=False))
    assert not found.failures, "\n".join(show(found))


def test_a_reader_that_hangs_crashes_or_raises_is_found():
    found = Found(formats.FORMATS[0].name)
    for number, how in enumerate(("read", "refused", "hang", "crash", "traceback", "memory")):
        found.add(number, {"how": how, "said": "x", "parsed": True, "grown": 0, "lines": []})
    found.add(6, {"how": "read", "said": "", "parsed": True, "grown": 10_000, "lines": []})
    assert [number for number, _, _ in found.failures] == [2, 3, 4, 5, 6] and found.inputs == 7


def test_what_is_stored_of_a_failure_names_no_folder_of_a_machine():
    trace = (
        'Traceback:\n  File "/a/b.py", line 1\nUserError: /var/x-1/input/film.gif cannot be read: 3/4 of it is gone.\n'
    )
    assert told(7, "memory", trace) == "input 7, memory: UserError: film.gif cannot be read: 3/4 of it is gone."


def test_the_command_names_formats_it_does_not_know():
    script = Path(__file__).parent / "fuzz" / "run.py"
    done = subprocess.run([sys.executable, script, "--format", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "settings (YAML)" in done.stderr
