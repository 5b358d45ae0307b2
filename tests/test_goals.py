"""Goals are compared with what is stored, and what is not stored is said to be not measured."""

import json
from pathlib import Path

import pytest

from benchmarks import goals
from benchmarks.goals import GOALS, GPU_GOALS, Goal
from benchmarks.measured import Found, Stored, number

ROOT = Path(__file__).resolve().parent.parent


def put(folder, name, **details):
    (folder / f"{name}.json").write_text(json.dumps({"details": details}))


def step_row(batch, position, **ways):
    seconds = {
        way: {"median": time, "times_faster": ways["published"] / time, "share_of_floor": 0.9}
        for way, time in ways.items()
    }
    return {"model": "default", "batch": batch, "position": position, "seconds": seconds}


def lines(text, name):
    return [line for line in text.splitlines() if name in line]


def test_a_goal_is_reached_or_missed_by_a_share_of_it():
    speed = Goal("A", "speed", 4.0, lambda stored: None, least=3.0)
    assert speed.verdict(4.0) == "reached"
    assert speed.verdict(3.0) == "missed by 25%"
    assert speed.verdict(2.0) == "missed by 50%, less than first attempts"
    assert speed.verdict(None) == "not measured"
    memory = Goal("B", "memory", 64, lambda stored: None, 80, "MiB", less=True)
    assert (memory.verdict(64.0), memory.verdict(80.0), memory.aim()) == ("reached", "missed by 25%", "at most 64 MiB")
    assert memory.verdict(96.0) == "missed by 50%, less than first attempts"
    none = Goal("C", "nothing allocated", 0, lambda stored: None, less=True)
    assert (none.verdict(0.0), none.verdict(2.0)) == ("reached", "missed by 200%")
    assert Goal("D", "no goal", None, lambda stored: None).verdict(1.0) is None


def test_the_faster_of_two_formats_counts(tmp_path):
    put(tmp_path, "sampling", steps=[step_row(1, 960, published=1.2, fp32=0.5, fp16=0.2, bf16=0.15, int8=0.1)])
    text = goals.made("speed_goals", tmp_path)
    (line,) = lines(text, "one code, 16 bits, 1 video |")
    assert "| at least 6x | 8x | reached |" in line
    (line,) = lines(text, "one code, 16 bits, 4 videos |")
    assert "| – | not measured |" in line
    summary = goals.made("speed_summary", tmp_path)
    (line,) = lines(summary, "16 bits")
    assert line == "| one code, 16 bits, 1 video | 1.2 s | 150 ms | 8 | 90% | at least 6x | reached |"


def test_the_growth_of_a_step_needs_both_ends(tmp_path):
    late, early = step_row(1, 960, published=1.0, fp16=0.3), step_row(1, 1, published=0.9, fp16=0.2)
    put(tmp_path, "sampling", steps=[late])
    assert "not measured" in lines(goals.made("speed_goals", tmp_path), "over one at position 1")[0]
    put(tmp_path, "sampling", steps=[late, early])
    assert (
        "| 1.5x | missed by 20%, less than" in lines(goals.made("speed_goals", tmp_path), "over one at position 1")[0]
    )


def test_without_results_nothing_is_measured(tmp_path):
    text = goals.made("speed_goals", tmp_path)
    rows = [line for line in text.splitlines() if line.startswith(("| C", "| G"))]
    assert len(rows) == len(GOALS) + len(GPU_GOALS)
    assert all(line.endswith("| not measured |") for line in rows)
    assert len(goals.made("speed_summary", tmp_path).splitlines()) == 4  # title, ruler, nothing, note
    assert goals.made("another", tmp_path) is None


def test_a_result_of_a_gpu_fills_its_goals(tmp_path):
    put(tmp_path, "gpu_a", gpu="A GPU", kernels=[], goals=[{"goal": "prefill", "value": 1.8}])
    (line,) = lines(goals.made("speed_goals", tmp_path), "768 known codes")
    assert line.endswith("| at most 1.2 ms | 1.8 ms | missed by 50% |")


@pytest.mark.parametrize("goal", [*GOALS, *GPU_GOALS], ids=lambda goal: f"{goal.name} {goal.what}")
def test_every_goal_reads_the_stored_results(goal):
    found = goal.measure(Stored(ROOT / "benchmarks" / "results"))
    assert found is None or (isinstance(found, Found) and found.value == found.value)


def test_the_documents_show_both_tables():
    assert "<!-- table:speed_summary -->" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- table:speed_goals -->" in (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")


def test_numbers_are_short():
    assert [number(value, unit) for value, unit in [(1.2345, "x"), (0.8512, "%"), (36646.4, "clips/s"), (0.0, "")]] == [
        "1.23x",
        "85%",
        "36,646 clips/s",
        "0",
    ]
