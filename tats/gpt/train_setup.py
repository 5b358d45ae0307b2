"""From flags to a transformer that fits its data: sizes, start weights, the learning rate."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tats import checkpoint
from tats.data.config import DataConfig
from tats.flags import UserError
from tats.gpt.config import PUBLISHED_VTOKENS, GPTConfig
from tats.gpt.model import GPT
from tats.gpt.start import codes_from_codebook, positions_from_grid
from tats.gpt.train_condition import Frozen, Texts, codes_of, parts_of
from tats.gpt.train_config import GPTTrainConfig, learning_rate
from tats.trainer_config import effective_batch
from tats.vqgan.model import VQGAN

if TYPE_CHECKING:
    from tats.data.module import VideoData


def fit_to_data(
    gpt: GPTConfig, training: GPTTrainConfig, data: "VideoData", frozen: Frozen, texts: Texts | None = None
) -> tuple[GPTConfig, list[str]]:
    """The architecture with every size that follows from data, VQGAN and condition, and what to say about them.

    texts: where they are (part of) the condition, what turns them into ids.
    """
    remarks = []
    n_codes, (t, h, w) = window_of(data, frozen.vqgan)
    if training.vocab_size not in (None, n_codes):
        remarks.append(f"--vocab_size {training.vocab_size}: the codebook has {n_codes} codes, which counts")
    shape = (-(-t // gpt.stride), h, w)
    parts = parts_of(gpt, data, frozen, texts)
    table = None
    if gpt.vtokens_pos:
        side = data.code_side or max(h, w)
        if side == max(h, w):
            remarks.append(
                f"--vtokens_pos: windows show the whole {h}x{w} codes of a picture, so the table of places ends there; "
                f"wide sampling needs crops of larger ones (--vtokens --spatial_length N)"
            )
        table = (shape[0], side, side)
    fitted = gpt.fitted(
        shape,
        n_codes,
        parts,
        label_names=data.label_names if "label" in gpt.keys else None,
        places_shape=table,
        empty=_has_empty(gpt, training),
        parts_optional=training.cond_dropout_parts > 0,
        bpe=texts.stored if texts else None,
    )
    return fitted, remarks


def _has_empty(gpt: GPTConfig, training: GPTTrainConfig) -> bool:
    """True where clips lose their condition in training: its parts then have an id that says nothing."""
    if training.cond_dropout and not gpt.keys:
        raise UserError("--cond_dropout: an unconditional transformer has no condition to leave out")
    if training.cond_dropout_parts and len(gpt.keys) < 2:
        raise UserError(
            f"--cond_dropout_parts is for several conditions (--cond_stage_key label+text), this is {gpt.key}: "
            f"--cond_dropout leaves it out"
        )
    return training.cond_dropout > 0 or training.cond_dropout_parts > 0


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
    t, h, w = codes_of(vqgan, vqgan.config.image_channels, config.clip_frames, side, side).shape
    return vqgan.n_codes, (t, h, w)


def start(config: GPTConfig, training: GPTTrainConfig, vqgan: VQGAN | None, seed: int) -> GPT:
    """A new transformer, or one with the weights of another (--init_from: one of ours or a released checkpoint).

    The architecture of the other counts. Where its condition has another vocabulary, the ids of codes keep their
    weights, and so do parts of the condition that both have; ids that are new (the empty one, say) start anew. Where it
    is longer or shorter, positions keep the weights of the code that they predict, and those in front start anew. Which
    frames a window holds and which codes are anchors may differ: no weight depends on it, so coarse and between models
    can start from one that continues videos. Raises UserError where codes or windows differ.
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
    same = ("n_codes", "places_shape") if theirs.n_cond != config.n_cond else ("n_codes", "block_size", "places_shape")
    wrong = [f"{name} {getattr(theirs, name)} instead of {getattr(config, name)}" for name in same
             if getattr(theirs, name) != getattr(config, name)]  # fmt: skip
    window, wanted = (
        theirs.block_size - theirs.n_cond,
        config.block_size - config.n_cond,
    )  # positions behind a condition
    if not wrong and window != wanted:
        wrong = [f"{window} positions behind its condition instead of {wanted}"]
    if wrong:
        raise UserError(f"--init_from {init_from} does not fit these data and flags: it has {', '.join(wrong)}")
    gpt = GPT(replace(config, n_layer=theirs.n_layer, n_head=theirs.n_head, n_embd=theirs.n_embd))
    weights, own = other.state_dict(), gpt.state_dict()
    for name in ("tok_emb.weight", "head.weight"):
        if theirs.code_offset != config.code_offset:
            rows = torch.cat([own[name][: config.code_offset], weights[name][theirs.code_offset :]])
            for part in config.parts:
                known = theirs.part(part.key)
                if known is not None and known.values == part.values:
                    there = weights[name][known.first_id : known.first_id + known.values]
                    rows[part.first_id : part.first_id + part.values] = there
            weights[name] = rows
    if theirs.n_cond != config.n_cond:
        behind = weights["pos_emb"][:, theirs.n_cond - 1 :]  # of codes: the last of the condition predicts the first
        weights["pos_emb"] = torch.cat([own["pos_emb"][:, : config.n_cond - 1], behind], 1)
    gpt.load_state_dict(weights)
    return gpt


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
