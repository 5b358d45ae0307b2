"""The recipe for long videos: its commands, which of them run again, and what it counts."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import lanes, long, long_judge
from benchmarks.lanes import Entry, Ledger, Step, typed
from benchmarks.long_judge import ends_of_clips, keeps_law, shares, through
from benchmarks.long_recipe import SIZES, STEP, LongConfig, listed, stages
from tats.checkpoint import save
from tats.data.shapes import draw_truth, render
from tats.flags import UserError
from tats.metrics.oracle import judge
from tats.video import from_frames, to_frames
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

ROOT = Path(__file__).resolve().parent.parent


def tiny_vqgan():
    """A VQGAN with random weights."""
    torch.manual_seed(0)
    config = VQGANConfig(n_codes=64, embedding_dim=4, n_hiddens=2, downsample=(4, 4, 4), norm_type="batch",
                         resolution=32, sequence_length=16)  # fmt: skip
    return VQGAN(config).eval()


def test_the_page_of_recipes_lists_the_commands_that_are_run():
    text = (ROOT / "docs" / "recipes.md").read_text()
    block = re.search(r"\n```\n(tats shapes .*?)```", text, re.DOTALL)
    assert block is not None
    assert block[1].splitlines() == [typed(step) for step in listed(LongConfig())]


@pytest.mark.parametrize("size", SIZES)
def test_steps_run_behind_what_they_read_and_videos_end_on_a_coarse_frame(size):
    done: set[str] = set()
    for stage in stages(LongConfig(size=size)):
        for lane in stage:
            own = set(done)
            for step in lane:
                assert set(step.reads) <= own, step.name
                own.add(step.name)
        done |= {step.name for lane in stage for step in lane}
    assert (SIZES[size].frames // 4 - 1) % STEP == 0 and SIZES[size].videos % 12 == 0


def play(tmp_path, monkeypatch, **more):
    """Runs three steps, b and c side by side behind a; the calls that were made, in their order. more: of a step."""
    write = "import pathlib, time, sys; o = pathlib.Path({out!r}); (o / '{name}').mkdir(exist_ok=True); "
    write += "f = (o / 'calls.txt').open('a'); f.write('{name}'); f.close(); {more}"
    made = {}
    for name, reads in (("a", ()), ("b", ("a",)), ("c", ("b",))):
        code = write.format(out=str(tmp_path), name=name, more=more.get(name, ""))
        made[name] = Step(name, f"do {name}", f'python -c "{code}"', reads)
    listing = [[[made["a"]]], [[made["b"], made["c"]]]]
    monkeypatch.setattr(long, "stages", lambda config: listing)
    monkeypatch.setattr(long, "listed", lambda config: list(made.values()))
    (tmp_path / "calls.txt").unlink(missing_ok=True)
    config = SimpleNamespace(out=str(tmp_path), vqgan=str(tmp_path), gpt=str(tmp_path))
    try:
        return long.run(config), (tmp_path / "calls.txt")
    finally:
        play.calls = (tmp_path / "calls.txt").read_text() if (tmp_path / "calls.txt").exists() else ""


def test_what_is_done_stays_and_what_has_changed_runs_again_with_all_that_reads_it(tmp_path, monkeypatch):
    ledger, _ = play(tmp_path, monkeypatch)
    assert play.calls == "abc" and ledger.entries["a"].seconds > 0 and ledger.entries["a"].peak_mib > 5
    play(tmp_path, monkeypatch)
    assert play.calls == ""
    (tmp_path / "c" / "old").touch()
    play(tmp_path, monkeypatch, b="pass")
    assert play.calls == "bc" and not (tmp_path / "c" / "old").exists()
    with pytest.raises(UserError, match="b ended with code 3"):
        play(tmp_path, monkeypatch, b="sys.exit(3)")
    (tmp_path / "b" / "kept").touch()
    with pytest.raises(UserError, match="b ended with code 3"):
        play(tmp_path, monkeypatch, b="sys.exit(3)")
    assert play.calls == "b" and (tmp_path / "b" / "kept").exists()  # a stopped step goes on
    play(tmp_path, monkeypatch, b="")
    assert play.calls == "bc" and not (tmp_path / "b" / "kept").exists()
    (tmp_path / "steps.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        play(tmp_path, monkeypatch)


def test_a_stopped_call_stops_what_it_started(tmp_path, monkeypatch):
    def interrupt(text):
        if "do b" in text:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(lanes, "tell", interrupt)
    began, before = (
        time.monotonic(),
        signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # a job in the background
    try:  # of a shell ignores Ctrl-C
        with pytest.raises(KeyboardInterrupt):
            play(tmp_path, monkeypatch, a="", b="time.sleep(60)")
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 30
    entries = json.loads((tmp_path / "steps.json").read_text())
    assert entries["a"]["done"] and not entries.get("b", {"done": False})["done"]


def test_the_commands_are_printed_without_running_anything():
    command = [sys.executable, "benchmarks/long.py", "--only_print", "--out", "elsewhere"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    assert run.stdout.splitlines() == [typed(step) for step in listed(LongConfig(out="elsewhere"))]
    run = subprocess.run([*command[:2], "--vqgan", "none.ckpt"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 2 and "none.ckpt: no such file; `make demo` trains it" in run.stderr


def test_true_films_pass_and_films_that_break_the_law_at_the_end_do_not():
    truths = [draw_truth(0, n, frames=240) for n in range(3)]
    films = [render(truth, 32) for truth in truths]
    judged = [judge(film, truth.colour, truth.shape) for film, truth in zip(films, truths)]
    assert all(count.share == 1 for count in shares(judged).values())
    assert all(keeps_law(one) for one in judged)
    stopped = np.concatenate([films[0][:180], films[0][180:181].repeat(60, 0)])  # stands still at the end
    other = np.concatenate([films[1][:-20], films[2][-20:]])  # becomes another object
    wrong = [judge(film, truth.colour, truth.shape) for film, truth in zip([stopped, other], truths)]
    found = {name: count.hits for name, count in shares(wrong).items()}
    assert found["law"] == 0 and found["right_object"] == 1 and found["legal_speed"] <= 1


def test_films_go_through_the_vqgan_as_one_piece_and_codes_of_clips_differ_at_the_ends():
    vqgan = tiny_vqgan()
    film = render(draw_truth(0, 0, frames=80), 32)
    whole = to_frames(vqgan.decode(vqgan.encode(from_frames(torch.from_numpy(film)[None]))))[0]
    difference = np.abs(through(vqgan, [film] * 2)[1].astype(int) - whole.numpy())
    assert difference.max() <= 1  # of 255 levels, where rounding falls on the other side
    ends = ends_of_clips(vqgan, [film])
    assert [count.total for count in ends] == [3 * 64] * 4  # clips at frames 16, 32 and 48
    assert max(ends[0].hits, ends[3].hits) >= max(ends[1].hits, ends[2].hits)


def test_what_was_sampled_is_judged_and_stored_with_times(tmp_path, monkeypatch):
    size = replace(SIZES["tiny"], frames=112, videos=3)
    monkeypatch.setitem(SIZES, "full", size)
    kept = {}
    monkeypatch.setattr(long_judge, "store", lambda name, columns, rows, **more: kept.update({name: (rows, more)}))
    vqgan = tiny_vqgan()
    save(vqgan, tmp_path / "vqgan")
    config = LongConfig(out=str(tmp_path), vqgan=str(tmp_path / "vqgan"))
    truths = [draw_truth(1, n, frames=size.frames) for n in range(size.videos)]
    for name in long_judge.MADE:
        folder = tmp_path / name / "numpy_files"
        folder.mkdir(parents=True)
        np.save(folder / "x_eval.npy", np.stack([render(truth, 32) for truth in truths]))
        videos = [{"class": truth.label} for truth in truths]
        (tmp_path / name / "manifest.json").write_text(json.dumps({"videos": videos}))
    ledger = Ledger(tmp_path)
    for step in listed(config):
        ledger.entries[step.name] = Entry(typed(step), True, 60.0, 6.0, 100.0)
    long_judge.judge_and_store(config, ledger)
    rows, more = kept["long"]
    assert [row[0] for row in rows] == list(long_judge.NAMES.values())
    assert all(row[1:] == ["100.0 % (43.9-100.0 %), 3 of 3"] * 5 for row in rows if row[0] != rows[1][0])
    assert "took 5.0 minutes, the other contexts 1.0 more" in more["note"]  # 2 to prepare, 2 to train, 1 to sample
    assert more["details"]["curves"]["hierarchical"][0] == {
        "first": 0, "motion": 1.0, "right_object": 1.0, "speed_of_start": 1.0, "valid": 1.0
    }  # fmt: skip
    assert kept["long_times"][0][0] == ["sliding window, context 1", 178.57, 17.86, 100]
    assert [row[0] for row in kept["long_ends"][0]] == [1, 2, 3, 4]
