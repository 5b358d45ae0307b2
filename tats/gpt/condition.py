"""Label, text, sound or nothing: what stands in front of the codes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tats.flags import UserError
from tats.gpt.config import GPTConfig

Label = int | str | Sequence[int] | Sequence[str] | Tensor


def condition(
    config: GPTConfig,
    batch: int,
    *,
    label: Label | None = None,
    text: Tensor | None = None,
    sound: Tensor | None = None,
    as_published: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The tokens of the condition of `batch` videos: int64 [batch, n_cond].

    label: a class id or its name, or one for each video. text: token ids [L] or [batch, L]. sound: codes of the sound,
    [t, h, w] or [batch, t, h, w]. Exactly the one that the model was trained with is taken; an unconditional model
    takes none and starts with its start token (as_published: with id 0).
    """
    given = [name for name, value in (("label", label), ("text", text), ("stft", sound)) if value is not None]
    wanted = [] if config.key == "none" else [config.key]
    if given != wanted:
        words = {"label": "a label", "text": "a text", "stft": "a sound"}
        has = " and ".join(words[name] for name in given) or "no condition"
        needs = words[wanted[0]] if wanted else "no condition (it is unconditional)"
        raise UserError(f"this transformer takes {needs}, but {has} was given")
    if label is not None:
        cond = _labels(config, label, batch)
    elif text is not None:
        cond = text.reshape(-1, text.shape[-1])
    elif sound is not None:
        cond = sound.reshape(1, -1) if sound.dim() == 3 else sound.flatten(1)
    else:
        cond = torch.tensor([[0 if as_published else config.sos_token]])
    if cond.shape[0] not in (1, batch):
        raise UserError(f"{cond.shape[0]} conditions were given for {batch} videos: one for all, or one each")
    if cond.min() < 0 or (config.code_offset and cond.max() >= config.code_offset):
        raise UserError(
            f"ids of the condition lie in 0..{config.code_offset - 1}, got {int(cond.min())}..{int(cond.max())}"
        )
    return cond.to(device=device, dtype=torch.long).expand(batch, -1)


def _labels(config: GPTConfig, label: Label, batch: int) -> Tensor:
    """Class ids [1 or batch, 1] from ids or names."""
    if isinstance(label, Tensor):
        return label.reshape(-1, 1)
    each: list[int | str] = [label] if isinstance(label, int | str) else [*label]
    return torch.tensor([label_id(config, one) for one in each]).reshape(-1, 1)


def label_id(config: GPTConfig, label: int | str) -> int:
    """The id of a class, given by id or by name."""
    if isinstance(label, str) and not label.isdigit():
        names = config.label_names or []
        if label not in names:
            known = f"its classes are {', '.join(names)}" if names else "it stores no names: give the id"
            raise UserError(f"this transformer knows no class {label!r}; {known}")
        return names.index(label)
    return int(label)
