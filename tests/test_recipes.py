"""Every command of README and docs is understood by the program it calls; computed numbers are computed right."""

import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tats.released import ALL

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *([ROOT / "README.md"] if (ROOT / "README.md").exists() else [])]
OTHERS = {"mkdir", "ln", "cd", "git", "pip", "tensorboard", "export"}  # programs that are not ours
PARSE = """
import contextlib, importlib, io, json, sys
from tats.__main__ import VERBS
from tats.flags import UserError

for program, *rest in json.load(sys.stdin):
    words = [*rest, "--print_config"]
    sys.argv = [program, *words]
    said = "did not stop at --print_config"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if program.endswith(".py"):
                importlib.import_module(program[:-3].replace("/", ".")).main()
            else:
                importlib.import_module(VERBS[program][0]).main(words)
    except SystemExit as end:
        said = "" if end.code in (0, None) else f"exit {end.code}"
    except (UserError, ImportError) as error:
        said = str(error)
    if said:
        print(f"{program} {' '.join(rest)}: {said}")
if "torch" in sys.modules:
    print("parsing a command imported torch")
"""


def blocks(page):
    """Fenced blocks of a page: (language, text)."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def behind_launcher(words):
    """What torchrun or srun starts: python SCRIPT.py ..., or tats VERB ..."""
    if words[:1] == ["srun"]:
        return words[next(place for place, word in enumerate(words) if word in ("python", "tats")) :]
    if words[:1] != ["torchrun"]:
        return words
    at = next(place for place, word in enumerate(words) if word.endswith(".py") or word == "-m")
    return ["python", *words[at:]] if words[at] != "-m" else words[at + 1 :]


def commands(page):
    """The commands of a page, one list of words each."""
    for language, text in blocks(page):
        if language in ("", "sh", "bash", "console"):
            for line in text.replace("\\\n", " ").splitlines():
                for part in re.split(r"\s&&\s", line.split(" #")[0]):
                    words = shlex.split(part.removeprefix("$ "), comments=True)
                    while words and re.fullmatch(r"\w+=\S*", words[0]):
                        words = words[1:]  # VARIABLE=value command
                    words = behind_launcher(words)
                    if words and "..." not in words:  # "sample_short.py ... --seed 1" is no whole command
                        yield words


FOUND = [(page.name, words) for page in PAGES for words in commands(page)]
OURS = sorted({tuple(words[1:]) for _, words in FOUND if words[0] in ("python", "tats") and words[1:2] != ["weights"]})


def test_the_docs_hold_commands_for_every_dataset_of_the_paper():
    text = (ROOT / "docs" / "recipes.md").read_text()
    for dataset, folder in (
        ("UCF-101", "data/ucf101"),
        ("Sky Time-lapse", "data/sky"),
        ("Taichi-HD", "data/taichi"),
        ("MUGEN at 256", "data/mugen"),
        ("AudioSet-Drums", "data/drums"),
    ):
        part = text.split(f"\n## {dataset}\n")[1].split("\n## ")[0]
        assert "train_vqgan.py" in part and "train_transformer.py" in part and folder in part and "The paper" in part
        assert re.search(r"sample_\w+\.py|tats evaluate", part)


@pytest.mark.parametrize("program", sorted({words[0] for words in OURS}))
def test_commands_are_understood(program):
    asked = [words for words in OURS if words[0] == program]
    assert program != "-m", f"the docs say `tats VERB`, not python {asked}"
    run = subprocess.run(
        [sys.executable, "-c", PARSE],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=True,
    )
    assert run.stdout == "", run.stdout


def test_every_other_command_is_known():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page, words in FOUND:
        if words[0] == "make":
            wanted = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            assert set(wanted) <= targets, f"{page}: make {words}"
        elif words[:2] == ["tats", "weights"]:
            known = words[2:] == ["list"] or (words[2] == "get" and words[3] in ALL and words[4:5] in ([], ["--to"]))
            assert known, f"{page}: {words}"
        else:
            assert words[0] in OTHERS or words[0] in ("python", "tats", "python3"), f"{page}: {words}"


def test_released_names_in_commands_exist():
    flags = (
        "--vqvae",
        "--vqgan",
        "--vqgan_ckpt",
        "--gpt_ckpt",
        "--stft_vqgan_ckpt",
        "--stft_vqvae",
        "--ckpt1",
        "--ckpt2",
    )
    for page, words in FOUND:
        if page in ("recipes.md", "released.md"):
            for flag, value in pairwise(words):
                own = value.startswith("runs/")  # made by a command above it
                assert flag not in flags or value in ALL or own, f"{page}: {flag} {value}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_docs_compiles(page):
    for language, text in blocks(page):
        if language == "python":
            compile(text, str(page), "exec")


def test_the_split_lists_of_ucf101_are_laid_out_as_the_recipe_says(tmp_path, monkeypatch):
    snippet = next(
        text for language, text in blocks(ROOT / "docs" / "recipes.md") if "trainlist" in text or "list01" in text
    )
    monkeypatch.chdir(tmp_path)
    lists = tmp_path / "data/raw/ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "trainlist01.txt").write_text("Archery/v_Archery_g08_c01.avi 3\r\nBiking/v_Biking_g09_c02.avi 11\r\n")
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    for name in ("Archery/v_Archery_g08_c01.avi", "Biking/v_Biking_g09_c02.avi", "Archery/v_Archery_g01_c01.avi"):
        video = tmp_path / "data/raw/UCF-101" / name
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_bytes(name.encode())
    exec(compile(snippet, "recipe", "exec"), {})
    made = {str(p.relative_to("data/ucf101")): p.read_bytes().decode() for p in Path("data/ucf101").rglob("*.avi")}
    assert made == {
        "train/Archery/v_Archery_g08_c01.avi": "Archery/v_Archery_g08_c01.avi",
        "train/Biking/v_Biking_g09_c02.avi": "Biking/v_Biking_g09_c02.avi",
        "test/Archery/v_Archery_g01_c01.avi": "Archery/v_Archery_g01_c01.avi",
    }


def test_hours_follow_from_the_stated_throughput():
    text = (ROOT / "docs" / "recipes.md").read_text()
    assert "computed, not measured" in text
    rows = re.findall(
        r"^\| ([^|]+) \| (\d+) \| (\d+) \| ([\d.]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE
    )
    assert len(rows) == 8
    for run, steps, clips, work, throughput, one, eight in rows:
        hours = int(steps) * int(clips) * float(work) / int(throughput) / 3600
        assert float(one) == pytest.approx(hours, abs=0.051), run
        assert float(eight) == pytest.approx(hours / 8, abs=0.051), run
