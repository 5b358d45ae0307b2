"""Tables of the documentation are those of the stored results."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("benchmark_tables", ROOT / "benchmarks" / "tables.py")
assert _spec is not None and _spec.loader is not None
tables = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tables)

TEXT = "# Title\n\n<!-- table:speed -->\n<!-- /table -->\n\nafter\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(TEXT)
    tables.store(
        "speed",
        ["way", "seconds", "MB"],
        [["one | two", 1.23456, 10], ["three", None, 2_000_000]],
        command="python benchmarks/speed.py",
        note="The smaller the better.",
        folder=tmp_path / "benchmarks" / "results",
    )
    return tmp_path


def test_every_table_of_the_documentation_is_made_from_its_result():
    assert tables.differing() == []


def test_tables_are_written_between_their_markers(project, capsys):
    assert tables.main([], project) == 0
    lines = (project / "README.md").read_text().splitlines()
    assert lines[:7] == [
        "# Title",
        "",
        "<!-- table:speed -->",
        "| way | seconds | MB |",
        "|---|---:|---:|",
        "| one \\| two | 1.235 | 10 |",
        "| three | – | 2000000 |",
    ]
    assert lines[8].startswith("The smaller the better. Measured with `python benchmarks/speed.py` on ")
    assert lines[9:] == ["<!-- /table -->", "", "after"]
    assert capsys.readouterr().out == "wrote README.md\n"
    assert tables.main([], project) == 0
    assert capsys.readouterr().out == ""


def test_a_changed_number_is_found(project, capsys):
    tables.main([], project)
    assert tables.main(["--check"], project) == 0
    result = project / "benchmarks" / "results" / "speed.json"
    stored = json.loads(result.read_text())
    stored["table"]["rows"][0][1] = 9.9
    result.write_text(json.dumps(stored))
    capsys.readouterr()
    assert tables.main(["--check"], project) == 1
    assert "differs: README.md: speed" in capsys.readouterr().out
    assert "9.9" not in (project / "README.md").read_text()


@pytest.mark.parametrize(
    "text, said",
    [
        (TEXT.replace("speed", "other"), "table other: there is no other.json"),
        (TEXT.replace("<!-- /table -->", ""), "has no line <!-- /table --> behind it"),
    ],
)
def test_a_table_without_result_or_end_is_an_error(project, capsys, text, said):
    (project / "README.md").write_text(text)
    for words in ([], ["--check"]):
        assert tables.main(words, project) == 2
        assert said in capsys.readouterr().err
    assert (project / "README.md").read_text() == text


def test_a_result_says_where_it_comes_from(project):
    stored = json.loads((project / "benchmarks" / "results" / "speed.json").read_text())
    assert stored["command"] == "python benchmarks/speed.py"
    assert stored["machine"]["cores"] >= 1
    assert stored["machine"]["torch"]
    with pytest.raises(ValueError, match="a row has 1 cells, the table 2 columns"):
        tables.store("wrong", ["a", "b"], [[1]], command="", folder=project)


@pytest.mark.parametrize("path", sorted(tables.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_results_name_no_folder_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    assert not [folder for folder in ("/tmp/", "/root/", "/home/", str(ROOT)) if folder in text]
