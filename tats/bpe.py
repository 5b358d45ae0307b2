"""`tats bpe`: train a byte-pair vocabulary on the captions of a data set.

tats bpe --data_path data/shapes --out data/shapes/bpe.json
python train_transformer.py --cond_stage_key text --bpe_path data/shapes/bpe.json ...

The vocabulary goes into the checkpoint of every transformer that is trained with it, so that sampling needs nothing but
a sentence. Training without `--bpe_path` makes such a vocabulary by itself; a file of its own keeps the ids alike for
several transformers, a hierarchical pair say.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tats import flags
from tats.data.config import DataConfig
from tats.flags import REQUIRED, UserError, arg


@dataclass(frozen=True)
class BPEConfig:
    """Trains a vocabulary of byte pairs on the captions of the train split."""

    out: str = arg(REQUIRED, "file that is written, .json")
    bpe_size: int = arg(1024, "ids at most; 259 of them are bytes, start, end and padding")
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        if not self.out.lower().endswith(".json"):
            raise UserError(f"--out {self.out}: the vocabulary is JSON, so its name ends with .json")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, read the captions, train, write."""
    config = flags.parse(BPEConfig, argv, prog="tats bpe")
    from tats.data.left_out import say
    from tats.data.texts import captions_of
    from tats.gpt.vocabulary import train

    captions = captions_of(config.data, "train")
    pairs = train(captions, config.bpe_size)
    out = Path(config.out).expanduser()
    flags.new_folder(out.parent, "--out")
    part = out.with_name(out.name + ".part")
    try:
        part.write_text(pairs.json, encoding="utf-8")
        os.replace(part, out)
    except OSError as error:
        raise UserError(f"--out {config.out} can't be written: {error.strerror}") from None
    lengths = sorted(len(pairs.encode(caption)) + 2 for caption in captions)
    say(
        f"{len(pairs)} ids from {len(captions)} captions, which take {lengths[0]} to {lengths[-1]} tokens with start "
        f"and end, {lengths[len(lengths) // 2]} in the middle (--text_len)"
    )
    print(out)


if __name__ == "__main__":
    flags.run(main)
