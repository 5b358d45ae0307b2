"""A score holds none of the videos that it has gone through."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def peak(count: int) -> float:
    """Megabytes that a process of its own needs for a score of `count` videos of 16 x 128 x 128."""
    command = [sys.executable, str(ROOT / "benchmarks" / "metrics.py"), "--stream", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    found = json.loads(done.stdout)
    assert f"{count // 2} generated against {count // 2} real" in found["line"]
    return found["peak_mb"]


def test_memory_does_not_grow_with_the_videos():
    few, many = peak(32), peak(416)
    held = 384 * 16 * 128 * 128 * 3 / 2**20  # what the other videos take as bytes: 288 MB
    assert many - few < held / 4
    assert many < 2000
