"""`tats tokenize`: write the codes of a data set once, to train transformers from them.

tats tokenize --vqgan_ckpt V.ckpt --data_path data/shapes --out data/shapes_codes
python train_transformer.py --vtokens --data_path data/shapes_codes ...
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tats import flags
from tats.data.config import DataConfig
from tats.flags import REQUIRED, UserError, arg


@dataclass(frozen=True)
class TokenizeConfig:
    """Encodes every window of a data set with a VQGAN; `train_transformer.py --vtokens` trains from the codes."""

    vqgan_ckpt: str = arg(REQUIRED, "the VQGAN: a checkpoint, a model folder, or the name of a released one")
    out: str = arg(REQUIRED, "folder the codes are written to, below train/ and test/")
    window_stride: int | None = arg(
        None, "frames between the windows of a training video, the last window always included; none: side by side"
    )
    device: str = arg("auto", "cpu, cuda, cuda:1 ...; auto: a GPU when there is one")
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        if self.window_stride is not None and self.window_stride < 1:
            raise UserError(f"--window_stride counts frames, 1 or more, got {self.window_stride}")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, encode."""
    config = flags.parse(TokenizeConfig, argv, prog="tats tokenize")
    import torch

    from tats import checkpoint
    from tats.data.tokenize import tokenize

    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    vqgan = checkpoint.load_vqgan(config.vqgan_ckpt, device)
    out = tokenize(config.data, vqgan, checkpoint.fingerprint(vqgan), config.out, config.window_stride)
    print(out)


if __name__ == "__main__":
    flags.run(main)
