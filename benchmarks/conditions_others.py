"""A folder of codes whose captions belong to other videos, for the control of the recipe by sentence; and the sentences
of the test videos, a line each.

    python benchmarks/conditions_others.py --codes runs/conditions/codes --out runs/conditions/others

Captions are dealt out anew within each split, so that every caption is there as often as before.
"""

import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tats import flags  # noqa: E402
from tats.flags import REQUIRED, UserError, arg  # noqa: E402

SENTENCES = "sentences.txt"


@dataclass(frozen=True)
class OthersConfig:
    """Deals the captions of a folder of codes out to other videos."""

    codes: str = arg(REQUIRED, "folder of codes with captions, as `tats tokenize` writes it")
    out: str = arg(REQUIRED, "folder that receives the same codes with the captions of others, and sentences.txt")
    seed: int = arg(0, "of the deal")


def deal(codes: Path, out: Path, seed: int) -> None:
    """Write both splits anew, and the sentences of the test split; the folder is there when it is complete.

    Raises:
        UserError: the codes hold no captions, or the folder is there.
    """
    import numpy as np

    from tats.data.code_index import read_index, write_index

    if out.exists():
        raise UserError(f"--out {out} is there already: remove it, or give another folder")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for split in ("train", "test"):
        index = read_index(codes / split)
        if len(index.captions) != len(index.videos):
            raise UserError(f"--codes {codes}: the codes of {split} hold no captions; make them with --text_cond")
        (part / split).mkdir(parents=True)
        for shard in index.shards:
            shutil.copyfile(codes / split / shard["file"], part / split / shard["file"])
        own, order = index.captions, np.random.default_rng((seed, len(index.videos))).permutation(len(index.videos))
        write_index(part / split, replace(index, captions=[own[video] for video in order], beside={}))
    (part / SENTENCES).write_text("".join(texts[0] + "\n" for texts in own), encoding="utf-8")
    os.replace(part, out)


def main() -> int:
    """Parse, deal."""
    config = flags.parse(OthersConfig)
    os.chdir(ROOT)
    deal(Path(config.codes), Path(config.out), config.seed)
    print(config.out)
    return 0


if __name__ == "__main__":
    flags.run(main)
