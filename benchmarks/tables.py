"""Tables of the documentation, made from stored results.

    python benchmarks/tables.py            # write the tables anew
    python benchmarks/tables.py --check    # change nothing; exit 1 and name the tables that differ

A benchmark calls `store`, which writes `benchmarks/results/NAME.json`: what was measured, on what machine, by which
command, and the table it makes. In a Markdown file, whatever stands between the lines `<!-- table:NAME -->` and
`<!-- /table -->` is replaced by that table. A test fails when they differ. Two tables are made from several results,
the goals of `benchmarks/goals.py` beside what was measured: `speed_summary` and `speed_goals`.
"""

import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = ("README.md", "docs/**/*.md")
sys.path.insert(0, str(ROOT))
BLOCK = re.compile(r"^<!-- table:([\w.-]+) -->\n(.*?)^<!-- /table -->$", re.MULTILINE | re.DOTALL)
OPEN = re.compile(r"^<!-- table:", re.MULTILINE)


class TableError(Exception):
    """A marker without an end, or a table without its result."""


def store(
    name: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    command: str,
    note: str = "",
    details: Mapping[str, Any] | None = None,
    folder: Path = RESULTS,
) -> Path:
    """Write a result and the table that documents show of it.

    Args:
        columns, rows: the table, cells as text, numbers or None; numbers are rounded to four digits in the document
            only.
        command: what was typed to measure this.
        note: what a reader must know; stands below the table.
        details: all else that was measured, plain values.
    """
    cells = [list(row) for row in rows]
    for row in cells:
        if len(row) != len(columns):
            raise ValueError(f"{name}: a row has {len(row)} cells, the table {len(columns)} columns: {row}")
    result = {
        "table": {"columns": list(columns), "rows": cells, "note": note},
        "command": command,
        "machine": machine(),
        "date": date.today().isoformat(),
        "details": dict(details or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, GPU, versions."""
    found: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    for package in ("torch", "pytorch-lightning", "triton", "av"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")  # a benchmark that has not imported it has not used a GPU
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cell(value: Any) -> str:
    """A cell as Markdown: numbers rounded to four digits, None as a dash, bars escaped."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def grid(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a table in Markdown; columns of nothing but numbers stand to the right."""
    numeric = [all(isinstance(row[k], (int, float)) or row[k] is None for row in rows) for k in range(len(columns))]
    return [
        "| " + " | ".join(map(cell, columns)) + " |",
        "|" + "|".join("---:" if right else "---" for right in numeric) + "|",
        *("| " + " | ".join(map(cell, row)) + " |" for row in rows),
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """The table of a stored result, with its note and how it was measured; ends with a line break."""
    table = result["table"]
    where = result["machine"]
    made = f"{where['gpu']}, " if "gpu" in where else ""
    made += f"{where['cores']} cores of {where['processor']}, torch {where.get('torch', '–')}, {result['date']}"
    note = f"{table['note'].rstrip('.')}. " if table.get("note") else ""
    return "\n".join(
        [*grid(table["columns"], table["rows"]), "", f"{note}Measured with `{result['command']}` on {made}.", ""]
    )


def fill(text: str, results: Path = RESULTS) -> str:
    """A document with its tables made anew.

    Raises:
        TableError: a marker without an end, or a table whose result is not stored.
    """
    if len(OPEN.findall(text)) != len(BLOCK.findall(text)):
        raise TableError("a line <!-- table:NAME --> has no line <!-- /table --> behind it")

    from benchmarks import goals

    def made(block: re.Match[str]) -> str:
        path = results / f"{block[1]}.json"
        table = goals.made(block[1], results)
        if table is None and not path.exists():
            raise TableError(f"table {block[1]}: there is no {path.name} in {results.name}/")
        if table is None:
            table = markdown(json.loads(path.read_text(encoding="utf-8")))
        return f"<!-- table:{block[1]} -->\n{table}<!-- /table -->"

    return BLOCK.sub(made, text)


def documents(root: Path = ROOT) -> list[Path]:
    """The Markdown files that may hold tables."""
    return sorted(path for pattern in DOCUMENTS for path in root.glob(pattern))


def differing(root: Path = ROOT) -> list[str]:
    """Documents whose tables are not those of the stored results, each with the names of these tables."""
    found = []
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        new = fill(text, root / "benchmarks" / "results")
        if new != text:
            pairs = zip(BLOCK.finditer(text), BLOCK.finditer(new))
            names = ", ".join(old[1] for old, made in pairs if old[0] != made[0])
            found.append(f"{path.relative_to(root)}: {names}")
    return found


def main(argv: Sequence[str], root: Path = ROOT) -> int:
    """Write the tables, or with --check name those that differ; returns the exit code."""
    try:
        if list(argv) == ["--check"]:
            for line in (found := differing(root)):
                print(f"differs: {line}; run: python benchmarks/tables.py")
            return 1 if found else 0
        if argv:
            print("usage: python benchmarks/tables.py [--check]", file=sys.stderr)
            return 2
        for path in documents(root):
            text = path.read_text(encoding="utf-8")
            new = fill(text, root / "benchmarks" / "results")
            if new != text:
                path.write_text(new, encoding="utf-8")
                print(f"wrote {path.relative_to(root)}")
    except TableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
