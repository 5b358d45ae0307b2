"""Formats of text: settings, captions, vocabularies, indexes, manifests."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz import mutate
from fuzz.format import Format, change_one, only

NAMES = ["a/1.mp4", "a/2.mp4", "b/3.mp4"]


def changed_json(data: bytes, rng: random.Random) -> bytes:
    """Mostly another tree, sometimes other bytes."""
    if rng.random() < 0.25:
        return mutate.text(data, rng)
    made = mutate.tree(json.loads(data), rng)
    if rng.random() < 0.02:
        return b"[" * 100_000
    return json.dumps(made, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def changed_yaml(data: bytes, rng: random.Random) -> bytes:
    """As `changed_json`, written as YAML; sometimes with tags, anchors and aliases that grow."""
    import yaml

    way = rng.random()
    if way < 0.25:
        return mutate.text(data, rng)
    if way < 0.35:
        tag = rng.choice(
            (
                "!!python/object/apply:os.system [touch hit]",
                "!!python/name:os.system",
                "!!binary x",
                "!!set {a, b}",
                "!!timestamp 2001-01-01",
                "&a [*a]",
                "!foo bar",
                "<<: 1",
            )
        )
        return data + b"batch_size: " + tag.encode() + b"\n"
    if way < 0.37:
        grown = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        grown += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
        return "\n".join(grown).encode()
    made = mutate.tree(yaml.safe_load(data), rng)
    return yaml.dump(made, allow_unicode=rng.random() < 0.5).encode("utf-8", "replace")


def seed_text(name: str, content: Callable[[], str]) -> Callable[[Path], None]:
    """Writes one text."""
    return lambda folder: (folder / name).write_text(content(), encoding="utf-8") and None


def settings_text() -> str:
    """The settings of a training run, as it stores them."""
    from tats import flags
    from tats.vqgan.train_config import VQGANTrainConfig

    values = flags.to_dict(VQGANTrainConfig())
    kept = {flag.name: values[flag.name] for flag in flags.collect(VQGANTrainConfig) if flag.is_flag}
    return flags.dump(kept)


def read_settings(folder: Path) -> Any:
    """`--config FILE`."""
    from tats import flags
    from tats.vqgan.train_config import VQGANTrainConfig

    return flags.parse(VQGANTrainConfig, ["--config", str(only(folder))])


def parse_yaml(folder: Path) -> Any:
    """The YAML itself."""
    import yaml

    found = yaml.safe_load(only(folder).read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("no settings")
    return found


def parse_json(folder: Path) -> Any:
    """The JSON itself."""
    return json.loads(only(folder, "*.json").read_text(encoding="utf-8"))


def captions() -> str:
    """Texts of videos, in our form."""
    return json.dumps({"a/1.mp4": "a red circle", "2.mp4": ["one", "two\ttabs"], "b/3.mp4": "drei ☃", "more": ["x"]})


def annotations() -> str:
    """Texts of videos, in the published form."""
    entries = [{"video": {"video_file": f"{n}.mp4"}, "annotations": [{"text": f"text {n}"}]} for n in (1, 2, 3)]
    return json.dumps({"data": entries, "metadata": {}})


def read_captions(folder: Path) -> Any:
    """Texts for the videos of a folder."""
    from tats.data.captions import read_texts

    texts = read_texts(only(folder), NAMES)
    return [text.encode("utf-8", "backslashreplace") for found in texts for text in found]


def table() -> str:
    """Texts of videos as a table."""
    return 'file,caption\na/1.mp4,a red circle\n2.mp4,"two, with a comma"\nb/3.mp4,drei \u2603\n'


def vocabulary() -> str:
    """Byte pairs trained on two captions."""
    from tats.gpt.vocabulary import train

    return train(["a red circle moves", "a blue square moves"], 270).json


def read_vocabulary(folder: Path) -> Any:
    """The tokenizer, and a text through it."""
    from tats.gpt import vocabulary

    tokenizer = vocabulary.read_vocabulary(only(folder))
    return tokenizer.decode(tokenizer.encode("a red circle \u2603 moves"))


SCHEDULE = """\
- from_frame: 0
  label: red_circle
- from_frame: 64
  label: 3
  cfg_scale: 2.5
- from_frame: 128
  text: "a circle turns"
"""


def parse_schedule(folder: Path) -> Any:
    """The YAML itself, a list."""
    import yaml

    found = yaml.safe_load(only(folder).read_text(encoding="utf-8"))
    if not isinstance(found, list):
        raise ValueError("no list")
    return found


def read_schedule(folder: Path) -> Any:
    """`--schedule FILE`."""
    from tats.changes import read_schedule

    return read_schedule(str(only(folder))).settings


def read_sentences(folder: Path) -> Any:
    """`--text FILE`."""
    from tats.conditions import sentences

    return sentences(str(only(folder)))


def parse_text(folder: Path) -> Any:
    """UTF-8."""
    return only(folder).read_text(encoding="utf-8")


def merges() -> str:
    """As many merges as the published vocabulary has, of made-up pairs."""
    from tats.gpt.bpe import MERGES, byte_letters

    letters = list(byte_letters().values())
    rows = [f"{letters[n % 256]} {letters[(n // 256) % 256]}{'x' * (n // 65536)}" for n in range(MERGES + 10)]
    return "#version: 0.2\n" + "\n".join(rows) + "\n"


def read_merges(folder: Path) -> Any:
    """The tokenizer, and a text through it."""
    from tats.gpt.bpe import ClipBPE

    tokenizer = ClipBPE(only(folder))
    return tokenizer.decode(tokenizer.encode("a red circle \u2603 moves"))


def parse_merges(folder: Path) -> Any:
    """Lines of UTF-8."""
    import gzip

    data = only(folder).read_bytes()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")


def seed_manifest(folder: Path) -> None:
    """The folder of a sampling run: codes and manifest."""
    import numpy as np

    from tats.output import Store, spread

    store = Store(folder, {"top_k": 5, "vqgan": "abc", "cfg_scale": 1.0}, {"version": 1})
    videos = spread(2, 0, [0, 1], ["x", "y"])
    store.add(videos, np.arange(2 * 2 * 3 * 3).reshape(2, 2, 3, 3))
    store.finish(videos)


def read_manifest(folder: Path) -> Any:
    """Going on with that run."""
    from tats.output import Store

    store = Store(folder, {"top_k": 5, "vqgan": "abc", "cfg_scale": 1.0}, {"version": 1})
    return [store.codes[index].sum() for index in store.codes]


SETTINGS = ("tats/flags_line.py", "tats/flags_values.py", "tats/flags.py")
FORMATS = [
    Format(
        "settings (YAML)",
        SETTINGS,
        seed_text("run.yaml", settings_text),
        change_one("*", changed_yaml),
        parse_yaml,
        read_settings,
    ),
    Format(
        "captions (JSON)",
        ("tats/data/captions.py",),
        seed_text("captions.json", captions),
        change_one("*", changed_json),
        parse_json,
        read_captions,
    ),
    Format(
        "captions of MUGEN (JSON)",
        ("tats/data/captions.py",),
        seed_text("captions.json", annotations),
        change_one("*", changed_json),
        parse_json,
        read_captions,
    ),
    Format(
        "captions (CSV)",
        ("tats/data/captions.py",),
        seed_text("captions.csv", table),
        change_one("*", mutate.text),
        parse_text,
        read_captions,
    ),
    Format(
        "byte pairs of captions (JSON)",
        ("tats/gpt/vocabulary.py",),
        seed_text("bpe.json", vocabulary),
        change_one("*", changed_json),
        parse_json,
        read_vocabulary,
    ),
    Format(
        "schedule (YAML)",
        ("tats/changes.py",),
        seed_text("schedule.yaml", lambda: SCHEDULE),
        change_one("*", changed_yaml),
        parse_schedule,
        read_schedule,
    ),
    Format(
        "sentences (text)",
        ("tats/conditions.py",),
        seed_text("texts.txt", lambda: "a red circle\nto the left\n"),
        change_one("*", mutate.text),
        parse_text,
        read_sentences,
    ),
    Format(
        "byte pairs (text)",
        ("tats/gpt/bpe.py",),
        seed_text("merges.txt", merges),
        change_one("*", mutate.text),
        parse_merges,
        read_merges,
    ),
    Format(
        "manifest of samples (JSON)",
        ("tats/output.py",),
        seed_manifest,
        change_one("*.json", changed_json),
        parse_json,
        read_manifest,
    ),
]
