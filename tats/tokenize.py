"""`tats tokenize`: write the codes of a data set once, to train transformers from them.

tats tokenize --vqgan_ckpt V.ckpt --data_path data/shapes --out data/shapes_codes
python train_transformer.py --vtokens --data_path data/shapes_codes ...

Captions that lie beside the videos are kept with the codes; --stft_vqgan_ckpt and --smap_vqgan_ckpt keep the codes of
their sounds and of their semantic maps beside them. With --whole every video is one long clip of codes, whatever its
length, and memory does not depend on it; training cuts windows of --latent_frames out of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tats import flags
from tats.data.config import DataConfig
from tats.flags import REQUIRED, UserError, arg


@dataclass(frozen=True)
class TokenizeConfig:
    """Encodes every window of a data set with a VQGAN; `train_transformer.py --vtokens` trains from the codes."""

    vqgan_ckpt: str = arg(REQUIRED, "the VQGAN: a checkpoint, a model folder, or the name of a released one")
    stft_vqgan_ckpt: str | None = arg(None, "the VQGAN of sounds: the codes of every clip's sound are kept beside it")
    smap_vqgan_ckpt: str | None = arg(None, "the VQGAN of semantic maps: their codes are kept beside every clip")
    out: str = arg(REQUIRED, "folder the codes are written to, below train/ and test/")
    window_stride: int | None = arg(
        None, "frames between the windows of a training video, the last window always included; none: side by side"
    )
    whole: bool = arg(
        False, "encode whole videos of any length, each as one long clip of codes; --sequence_length is not needed"
    )
    crops: int = arg(1, "crops of each training video; the first is the middle square, others are smaller, at random")
    flips: bool = arg(False, "every crop of a training video once more, mirrored from left to right")
    decode_group_norm_in_pieces: bool = arg(
        False, "with --whole and a VQGAN with group normalisation: pieces of its training length, with seams"
    )
    device: str = arg("auto", "cpu, cuda, cuda:1 ...; auto: a GPU when there is one")
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        if self.window_stride is not None and self.window_stride < 1:
            raise UserError(f"--window_stride counts frames, 1 or more, got {self.window_stride}")
        if self.crops < 1:
            raise UserError(f"--crops counts squares, 1 or more, got {self.crops}")
        if self.whole and self.window_stride is not None:
            raise UserError("--whole encodes videos from end to end: there are no windows for --window_stride to place")
        if self.whole and (self.stft_vqgan_ckpt or self.smap_vqgan_ckpt):
            raise UserError(
                "--whole keeps codes of videos alone; sounds and maps are encoded with windows: leave it out"
            )
        if self.decode_group_norm_in_pieces and not self.whole:
            raise UserError("--decode_group_norm_in_pieces is for whole videos: give --whole too, or leave it out")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, encode, print where the codes are."""
    print(tokenize_all(flags.parse(TokenizeConfig, argv, prog="tats tokenize")))


def tokenize_all(config: TokenizeConfig) -> Path:
    """Load the VQGAN and encode both splits; returns the folder of the codes."""
    from tats import checkpoint
    from tats.data.tokenize import Encoder, tokenize, tokenize_whole
    from tats.data.variants import Variants
    from tats.sampling import device_of
    from tats.vqgan.stream import encode_stream

    device = device_of(config.device)
    vqgan = checkpoint.load_vqgan(config.vqgan_ckpt, device)
    fingerprint, variants = checkpoint.fingerprint(vqgan), Variants(config.crops, config.flips)
    if config.whole:
        encode = partial(encode_stream, group_norm_in_pieces=config.decode_group_norm_in_pieces)
        return tokenize_whole(config.data, vqgan, fingerprint, config.out, encode, variants)
    paths = {"stft": config.stft_vqgan_ckpt, "smap": config.smap_vqgan_ckpt}
    others = {key: checkpoint.load_vqgan(path, device) for key, path in paths.items() if path is not None}
    data = replace(config.data, stft_data=config.data.stft_data or "stft" in others)
    if "smap" in others:
        data = replace(data, smap_cond=others["smap"].config.image_channels)
    beside = {key: Encoder(other, checkpoint.fingerprint(other)) for key, other in others.items()}
    return tokenize(data, vqgan, fingerprint, config.out, config.window_stride, beside, variants)


if __name__ == "__main__":
    flags.run(main)
