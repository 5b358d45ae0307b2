"""What a transformer is conditioned on, from flags and data: its parts, the byte pairs of texts, the frozen VQGANs."""

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from tats import checkpoint
from tats.data.config import DataConfig
from tats.data.left_out import say
from tats.data.module import VideoData
from tats.data.spectrogram import SIZE
from tats.flags import UserError
from tats.gpt.bpe import ADDRESS, SHA256, ClipBPE
from tats.gpt.config import GPTConfig
from tats.gpt.train_config import GPTTrainConfig
from tats.gpt.vocabulary import CaptionBPE, read_vocabulary, train
from tats.vqgan.model import VQGAN

CLIP_LENGTH = 256  # tokens of a text in the published models
TRAINED_IDS = 1024  # ids, at most, of a vocabulary that is trained with the transformer


@dataclass(frozen=True)
class Frozen:
    """The VQGANs that turn videos, sounds and semantic maps into codes, None where there is none."""

    vqgan: VQGAN | None
    sound: VQGAN | None = None
    smap: VQGAN | None = None

    @classmethod
    def load(cls, config: GPTTrainConfig) -> "Frozen":
        """All from the checkpoints that the flags name."""
        paths = (config.vqvae, config.stft_vqvae, config.smap_vqvae)
        return cls(*(checkpoint.load_vqgan(path) if path else None for path in paths))

    def prints(self, data: VideoData) -> dict[str, str]:
        """The fingerprints of the VQGANs that the condition comes from, as checkpoints keep them: of those that are
        here, and of those that made the codes beside `data`."""
        beside = getattr(data.source("train"), "beside", {})
        found = {f"{key}_vqgan": part.vqgan for key, part in beside.items()}
        own = {"stft_vqgan": self.sound, "smap_vqgan": self.smap}
        return found | {name: checkpoint.fingerprint(each) for name, each in own.items() if each is not None}


@dataclass(frozen=True)
class Texts:
    """Turns texts into rows of ids, int64 [N, length]; longer ones are cut where `truncate` says so, else refused."""

    pairs: ClipBPE | CaptionBPE
    length: int
    truncate: bool = False

    @property
    def stored(self) -> str | None:
        """What a checkpoint keeps of the vocabulary: the JSON text of trained pairs."""
        return self.pairs.json if isinstance(self.pairs, CaptionBPE) else None

    def __call__(self, texts: list[str]) -> Tensor:
        return self.pairs.tokenize(texts, self.length, self.truncate)


def opened(
    gpt: GPTConfig, training: GPTTrainConfig, data: DataConfig, seed: int
) -> tuple[VideoData, Frozen, Texts | None]:
    """What a transformer is trained with: the data, whose clips carry what the condition wants of them, the frozen
    VQGANs, and what turns texts into ids, where they are (part of) the condition."""
    by_text, frozen = "text" in gpt.keys, Frozen.load(training)
    data = replace(data, text_cond=data.text_cond or by_text)
    if not data.vtokens and "stft" in gpt.keys:
        data = replace(data, stft_data=True)
    if not data.vtokens and "smap" in gpt.keys and frozen.smap is not None:
        data = replace(data, smap_cond=frozen.smap.config.image_channels)
    videos = VideoData(data, seed=seed, crop_codes=gpt.vtokens_pos)
    return videos, frozen, texts_of(training, videos) if by_text else None


def texts_of(training: GPTTrainConfig, data: VideoData) -> Texts:
    """The vocabulary of texts and their length: as the flags say; without --bpe_path pairs are trained on the captions,
    or are those of --init_from.

    Raises:
        UserError: no captions, no such vocabulary, or a caption that is too long, with the name of its video.
    """
    captions = {split: data.captions(split) for split in ("train", "test")}
    pairs = _pairs(training, [text for _, text in captions["train"]])
    found = [(len(pairs.encode(text)) + 2, name, text) for split in captions for name, text in captions[split]]
    longest, name, text = max(found)
    length = training.text_len or (CLIP_LENGTH if isinstance(pairs, ClipBPE) else longest)
    if longest > length and not training.truncate_captions:
        count = sum(n > length for n, _, _ in found)
        raise UserError(
            f"{count} of {len(found)} captions have more than the {length} tokens of --text_len, the longest {longest} "
            f"with its start and end: {name}: {text[:80]!r}. Give --text_len {longest}, or --truncate_captions"
        )
    return Texts(pairs, length, training.truncate_captions)


def _pairs(training: GPTTrainConfig, captions: list[str]) -> ClipBPE | CaptionBPE:
    if training.bpe_path is not None:
        return read_vocabulary(training.bpe_path)
    if training.init_from is not None:
        theirs = checkpoint.load_transformer(training.init_from).config
        if theirs.bpe is not None:
            return CaptionBPE(theirs.bpe, training.init_from)
    pairs = train(captions, TRAINED_IDS)
    say(
        f"--bpe_path is not given: {len(pairs)} byte pairs were trained on {len(captions)} captions, the checkpoint "
        f"keeps them (CLIP's, as published: {ADDRESS}, sha256 of the unpacked text {SHA256})"
    )
    return pairs


def parts_of(gpt: GPTConfig, data: VideoData, frozen: Frozen, texts: Texts | None) -> list[tuple[str, int, int]]:
    """The parts of the condition, as `GPTConfig.fitted` takes them: what each is, its tokens, its ids."""
    parts = []
    for key in gpt.keys:
        if key == "label":
            data.need_classes()
            parts.append((key, 1, data.n_classes))
        elif key == "text":
            if texts is None:
                raise ValueError("texts must be given for a transformer that is conditioned on texts")
            parts.append((key, texts.length, len(texts.pairs)))
        else:
            parts.append((key, *_of_codes(key, data, frozen)))
    return parts


def _of_codes(key: str, data: VideoData, frozen: Frozen) -> tuple[int, int]:
    """Tokens and ids of a condition that is codes itself: sounds, maps."""
    config = data.config
    own = frozen.sound if key == "stft" else frozen.smap
    what = "sounds" if key == "stft" else "semantic maps"
    if config.vtokens:
        stored = getattr(data.source("train"), "beside", {}).get(key)
        if stored is None:
            raise UserError(
                f"--cond_stage_key {key}: {config.data_path} holds no codes of {what}; `tats tokenize "
                f"--{key}_vqgan_ckpt` keeps them beside those of the videos"
            )
        if own is not None and checkpoint.fingerprint(own) != stored.vqgan:
            raise UserError(f"--{key}_vqvae is not the VQGAN that made the codes of {what} in {config.data_path}")
        return prod(stored.latent_shape), stored.n_codes
    if own is None:
        raise UserError(f"--cond_stage_key {key} needs --{key}_vqvae, the checkpoint of the VQGAN of {what}")
    if key == "stft":
        return codes_of(own, 1, config.span, *SIZE).numel(), own.n_codes
    return codes_of(
        own, config.smap_cond, config.clip_frames, config.resolution, config.resolution
    ).numel(), own.n_codes


def codes_of(vqgan: VQGAN, channels: int, frames: int, height: int, width: int) -> Tensor:
    """Codes of an empty clip, for its shape: int64 [t, h, w]."""
    try:
        with torch.no_grad():
            return vqgan.encode(torch.zeros(1, channels, frames, height, width))[0]
    except RuntimeError as error:
        t, h, w = vqgan.config.downsample
        raise UserError(
            f"clips of {frames} frames, {height}x{width}, are too small for a VQGAN that shrinks by {t}x{h}x{w} "
            f"({str(error).splitlines()[0]})"
        ) from None
