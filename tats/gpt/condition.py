"""Labels, texts, sounds, maps or nothing: what stands in front of the codes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tats.flags import UserError
from tats.gpt.config import GPTConfig, Part

Label = int | str | Sequence[int] | Sequence[str] | Tensor
Text = str | Sequence[str] | Tensor
GIVEN = {"label": "label", "text": "text", "stft": "sound", "smap": "smap"}  # part -> the argument that gives it
WORDS = {"label": "a label", "text": "a text", "stft": "a sound", "smap": "a semantic map"}


def condition(
    config: GPTConfig,
    batch: int,
    *,
    label: Label | None = None,
    text: Text | None = None,
    sound: Tensor | None = None,
    smap: Tensor | None = None,
    as_published: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The tokens of the condition of `batch` videos: int64 [batch, n_cond].

    label: a class id or its name, or one for each video. text: a sentence or one for each video, for transformers that
    hold their byte pairs; ids [L] or [batch, L] for all. sound: codes of the sound, [t, h, w] or [batch, t, h, w].
    smap: codes of the semantic maps, likewise. Exactly what the model was trained with is taken; one that was trained
    with --cond_dropout_parts takes any of its parts, what is missing becomes ids that say so. An unconditional model
    takes none and starts with its start token (as_published: with id 0).

    Raises:
        UserError: something is missing or too much, ids beyond those of the model, not one for all or one each, or a
            text that is too long.
    """
    given: dict[str, Any] = {"label": label, "text": text, "stft": sound, "smap": smap}
    _check_given(config, [key for key, value in given.items() if value is not None])
    if not config.parts:
        return torch.full((batch, 1), 0 if as_published else config.sos_token, dtype=torch.long, device=device)
    rows = [
        _empty(part, batch, device)
        if given[part.key] is None
        else _ids(config, part, given[part.key], batch).to(device) + part.first_id
        for part in config.parts
    ]
    return torch.cat(rows, 1)


def empty_condition(config: GPTConfig, batch: int, device: torch.device | str = "cpu") -> Tensor:
    """The tokens that say that nothing is given, for all parts of the condition: int64 [batch, n_cond].

    Raises:
        UserError: the model was trained without them, or has no condition.
    """
    if not config.empty or not config.parts:
        raise UserError(
            "this transformer knows no empty condition: train it with --cond_dropout above 0, and with a condition"
        )
    return torch.cat([_empty(part, batch, device) for part in config.parts], 1)


def _empty(part: Part, batch: int, device: torch.device | str) -> Tensor:
    """The tokens that say that a part is not given: int64 [batch, part.n_cond]."""
    return torch.full((batch, part.n_cond), part.empty_id, dtype=torch.long, device=device)


def _check_given(config: GPTConfig, given: list[str]) -> None:
    """Exactly the parts of the condition must be there, or one or more of them where they were left out in training."""
    some = config.parts_optional and given and set(given) <= set(config.keys)
    if given != list(config.keys) and not some:
        has = " and ".join(WORDS[key] for key in given) or "no condition"
        between = " or " if config.parts_optional else " and "
        needs = between.join(WORDS[key] for key in config.keys) or "no condition (it is unconditional)"
        raise UserError(f"this transformer takes {needs}, but {has} was given")


def _ids(config: GPTConfig, part: Part, value: Any, batch: int) -> Tensor:
    """The ids of one part, counted from 0: int64 [batch, n]."""
    if part.key == "label":
        ids = _labels(config, value)
    elif part.key == "text":
        ids = _texts(config, part, value)
    else:
        ids = value.reshape(1, -1) if value.dim() == 3 else value.flatten(1)
    alone = len(config.parts) == 1  # then `Layout` follows the condition, which released files do not describe
    if ids.shape[1] != part.n_cond and not alone:
        raise UserError(f"{WORDS[part.key]} takes {part.n_cond} tokens in this transformer, {ids.shape[1]} were given")
    if ids.shape[0] not in (1, batch):
        raise UserError(f"{ids.shape[0]} conditions were given for {batch} videos: one for all, or one each")
    if ids.numel() and (ids.min() < 0 or ids.max() >= part.values):
        name = "the condition" if alone else GIVEN[part.key]
        raise UserError(f"ids of {name} lie in 0..{part.values - 1}, got {int(ids.min())}..{int(ids.max())}")
    return ids.to(torch.long).expand(batch, -1)


def _labels(config: GPTConfig, label: Label) -> Tensor:
    """Class ids [1 or batch, 1] from ids or names."""
    if isinstance(label, Tensor):
        return label.reshape(-1, 1)
    each: list[int | str] = [label] if isinstance(label, int | str) else [*label]
    return torch.tensor([label_id(config, one) for one in each]).reshape(-1, 1)


def _texts(config: GPTConfig, part: Part, text: Text) -> Tensor:
    """Ids of texts [1 or batch, n]."""
    if isinstance(text, Tensor):
        return text.reshape(-1, text.shape[-1])
    texts = [text] if isinstance(text, str) else list(text)
    if config.bpe is None:
        raise UserError(
            "this transformer does not hold the byte pairs of its texts: give ids, as tats.gpt.bpe.ClipBPE(path)."
            f"tokenize(texts, {part.n_cond}) makes them (scripts: --bpe_path)"
        )
    from tats.gpt.vocabulary import of_checkpoint

    return of_checkpoint(config.bpe).tokenize(texts, part.n_cond)


def label_id(config: GPTConfig, label: int | str) -> int:
    """The id of a class, given by id or by name."""
    if isinstance(label, str) and not label.isdigit():
        names = config.label_names or []
        if label not in names:
            known = f"its classes are {', '.join(names)}" if names else "it stores no names: give the id"
            raise UserError(f"this transformer knows no class {label!r}; {known}")
        return names.index(label)
    return int(label)
