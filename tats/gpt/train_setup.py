"""From flags to a transformer that fits its data: sizes, start weights, the learning rate."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tats import checkpoint
from tats.data.config import DataConfig
from tats.flags import UserError
from tats.gpt.config import PUBLISHED_VTOKENS, TEXT_VOCABULARY, GPTConfig
from tats.gpt.model import GPT
from tats.gpt.start import codes_from_codebook, positions_from_grid
from tats.gpt.train_config import GPTTrainConfig, learning_rate
from tats.trainer_config import effective_batch
from tats.vqgan.model import VQGAN

if TYPE_CHECKING:
    from tats.data.module import VideoData

SPECTROGRAM = (64, 16)  # rows and columns of the sound of one video frame


@dataclass(frozen=True)
class Frozen:
    """The VQGANs that turn videos and sounds into codes, None where there is none."""

    vqgan: VQGAN | None
    sound: VQGAN | None

    @classmethod
    def load(cls, config: GPTTrainConfig) -> "Frozen":
        """Both from the checkpoints that the flags name."""
        vqgan = checkpoint.load_vqgan(config.vqvae) if config.vqvae else None
        return cls(vqgan, checkpoint.load_vqgan(config.stft_vqvae) if config.stft_vqvae else None)


def fit_to_data(
    gpt: GPTConfig, training: GPTTrainConfig, data: "VideoData", frozen: Frozen
) -> tuple[GPTConfig, list[str]]:
    """The architecture with every size that follows from data, VQGAN and condition, and what to say about them."""
    remarks = []
    n_codes, (t, h, w) = window_of(data, frozen.vqgan)
    if training.vocab_size not in (None, n_codes):
        remarks.append(f"--vocab_size {training.vocab_size}: the codebook has {n_codes} codes, which counts")
    shape = (-(-t // gpt.stride), h, w)
    code_offset, n_cond, names = 0, 1, None
    if gpt.key == "label":
        data.need_classes()
        code_offset, names = data.n_classes, data.label_names
    elif gpt.key == "text":
        code_offset, n_cond = TEXT_VOCABULARY, training.text_length
    elif gpt.key == "stft":
        if frozen.sound is None:
            raise UserError("--cond_stage_key stft needs --stft_vqvae, the checkpoint of the VQGAN of sounds")
        code_offset = frozen.sound.n_codes
        n_cond = _codes_of(frozen.sound, 1, data.config.clip_frames, *SPECTROGRAM).numel()
    table = None
    if gpt.vtokens_pos:
        side = data.code_side or max(h, w)
        if side == max(h, w):
            remarks.append(
                f"--vtokens_pos: windows show the whole {h}x{w} codes of a picture, so the table of places ends there; "
                f"wide sampling needs crops of larger ones (--vtokens --spatial_length N)"
            )
        table = (shape[0], side, side)
    return gpt.fitted(shape, n_codes, code_offset, n_cond, names, table), remarks


def window_of(data: "VideoData", vqgan: VQGAN | None) -> tuple[int, tuple[int, int, int]]:
    """Size of the codebook, and the codes of one clip: latent frames (all of them), rows and columns."""
    config: DataConfig = data.config
    if config.vtokens:
        shape = data.latent_shape
        if shape is None:
            raise UserError(f"--vtokens: {config.data_path} holds no codes; make them with `tats tokenize`")
        if vqgan is not None:
            data.need_vqgan(checkpoint.fingerprint(vqgan))
            if data.n_codes not in (None, vqgan.n_codes):
                raise UserError(f"--vqvae has {vqgan.n_codes} codes, {config.data_path} those of {data.n_codes}")
        return (vqgan.n_codes if vqgan else data.n_codes or PUBLISHED_VTOKENS), shape
    if vqgan is None:
        raise UserError("--vqvae is needed: the checkpoint of the VQGAN whose codes are modelled (or --vtokens)")
    side = config.resolution
    t, h, w = _codes_of(vqgan, vqgan.config.image_channels, config.clip_frames, side, side).shape
    return vqgan.n_codes, (t, h, w)


def _codes_of(vqgan: VQGAN, channels: int, frames: int, height: int, width: int) -> Tensor:
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


def start(config: GPTConfig, training: GPTTrainConfig, vqgan: VQGAN | None, seed: int) -> GPT:
    """A new transformer, or one with the weights of another (--init_from: one of ours or a released checkpoint).

    The architecture of the other counts. Where its condition has another vocabulary, the ids of codes keep their
    weights and those of the condition start anew. Which frames a window holds and which codes are anchors may differ:
    no weight depends on it, so coarse and between models can start from one that continues videos. Raises UserError
    where codes or windows differ.
    """
    init_from = training.init_from
    if init_from is None:
        gpt = GPT(config)
        if training.start_codes == "codebook" and vqgan is not None:
            codes_from_codebook(gpt, vqgan.codebook.embeddings, torch.Generator().manual_seed(seed))
        if training.start_positions == "grid":
            positions_from_grid(gpt)
        return gpt
    other = checkpoint.load_transformer(init_from)
    theirs = other.config
    same = ("n_codes", "block_size", "places_shape")
    wrong = [f"{name} {getattr(theirs, name)} instead of {getattr(config, name)}" for name in same
             if getattr(theirs, name) != getattr(config, name)]  # fmt: skip
    if wrong:
        raise UserError(f"--init_from {init_from} does not fit these data and flags: it has {', '.join(wrong)}")
    gpt = GPT(replace(config, n_layer=theirs.n_layer, n_head=theirs.n_head, n_embd=theirs.n_embd))
    weights, own = other.state_dict(), gpt.state_dict()
    for name in ("tok_emb.weight", "head.weight"):
        if theirs.code_offset != config.code_offset:
            weights[name] = torch.cat([own[name][: config.code_offset], weights[name][theirs.code_offset :]])
    gpt.load_state_dict(weights)
    return gpt


def text_tokens(training: GPTTrainConfig) -> Callable[[list[str]], Tensor]:
    """What turns texts into ids [B, --text_length], by the vocabulary of --bpe."""
    from tats.gpt.bpe import ClipBPE

    if training.bpe is None:
        raise UserError(
            "--cond_stage_key text needs --bpe, the vocabulary of byte pairs (tats weights get clip-bpe fetches it)"
        )
    pairs = ClipBPE(training.bpe)
    return lambda texts: pairs.tokenize(texts, training.text_length, truncate=True)


def rate(training: GPTTrainConfig, accumulate: int, processes: int, batch_size: int) -> tuple[float, list[str]]:
    """The learning rate, and lines that tell it and the effective batch with their factors."""
    lines = [effective_batch(batch_size, accumulate, processes)]
    if training.lr is not None:
        return training.lr, [*lines, f"learning rate {training.lr:.3g} (--lr)"]
    value = learning_rate(accumulate, processes, batch_size, training.base_lr)
    told = (
        f"learning rate {value:.3g} = {accumulate} (accumulated) * {processes} (processes) "
        f"* {batch_size} (batch size) * {training.base_lr:g} (--base_lr)"
    )
    return value, [*lines, told]
