"""The flags of training a transformer that are neither its architecture nor its data. No torch here."""

from dataclasses import dataclass
from typing import ClassVar

from tats.flags import UserError, arg


@dataclass(frozen=True)
class GPTTrainConfig:
    """How the transformer learns."""

    vqvae: str | None = arg(None, "checkpoint of the VQGAN whose codes are modelled (a path or a released name)")
    stft_vqvae: str | None = arg(None, "checkpoint of the VQGAN of sounds, with --cond_stage_key stft")
    smap_vqvae: str | None = arg(None, "checkpoint of the VQGAN of semantic maps, with --cond_stage_key smap")
    init_from: str | None = arg(None, "start from the weights of this transformer: one of ours or a released one")
    base_lr: float = arg(4.5e-6, "learning rate = accumulate_grad_batches * processes * batch_size * this")
    lr: float | None = arg(None, "the learning rate itself, in place of --base_lr and its rule")
    lr_schedule: str = arg("constant", "course of the learning rate; cosine falls to 0", ["constant", "cosine"])
    warmup_steps: int = arg(0, "optimizer steps in which the learning rate rises from 0")
    optimizer: str = arg("adamw", "adamw: as published; muon: Muon for the matrices of the blocks", ["adamw", "muon"])
    muon_lr: float = arg(0.02, "learning rate of these matrices, with --optimizer muon")
    start_codes: str = arg(
        "random", "codes start at random, as published, or alike where --vqvae's vectors are", ["random", "codebook"]
    )
    start_positions: str = arg(
        "zeros", "positions start at zero, as published, or as waves of place", ["zeros", "grid"]
    )
    weight_decay: float = arg(0.01, "decay of the weights of linear layers")
    pkeep: float = arg(1.0, "share of codes that the model sees as they are; the others are replaced at random")
    own_codes: float = arg(0.0, "share of windows in which the model sees what it draws itself in place of the codes")
    cond_dropout: float = arg(
        0.0, "share of clips that lose their condition, so that sampling can be guided by it (--cfg_scale)"
    )
    cond_dropout_parts: float = arg(
        0.0, "of several conditions: share of clips that each of them by itself is left out of"
    )
    loss_on: str = arg("new", "codes that count in a model that fills in frames: those between, or all", ["new", "all"])
    vocab_size: int | None = arg(None, "size of the codebook; where it differs, the VQGAN's counts")
    bpe_path: str | None = arg(
        None,
        "byte pairs of texts: CLIP's (.txt, .txt.gz) or JSON of `tats bpe`; none: trained on the captions",
        aliases=("bpe",),
    )
    text_len: int | None = arg(
        None, "tokens of a text; none: 256 for CLIP's pairs, else as the longest caption", aliases=("text_length",)
    )
    truncate_captions: bool = arg(False, "cut captions that are longer than --text_len, which are refused otherwise")
    activation_checkpointing: bool = arg(
        False, "compute each block a second time in the backward pass: less memory, a third more time"
    )
    compile: bool = arg(False, "compile the transformer's blocks (torch.compile): a minute at the start, faster steps")

    notes: ClassVar[dict[str, tuple[int | str, str]]] = {
        "first_stage_vocab_size": (1, "has no effect: the codebook says how many codes there are"),
        "first_stage_key": (1, "has no effect: videos are the only thing that is modelled"),
    }

    def __post_init__(self) -> None:
        if not 0 < self.pkeep <= 1:
            raise UserError(f"--pkeep is a share above 0 and at most 1, got {self.pkeep}")
        if self.text_len is not None and self.text_len < 3:
            raise UserError(
                f"--text_len counts tokens, the start and the end of a text too: 3 or more, got {self.text_len}"
            )
        if not 0 <= self.own_codes <= 1:
            raise UserError(f"--own_codes is a share from 0 to 1, got {self.own_codes}")
        for name in ("cond_dropout", "cond_dropout_parts"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} is a share from 0 to below 1, got {getattr(self, name)}")
        if self.warmup_steps < 0:
            raise UserError(f"--warmup_steps counts optimizer steps, got {self.warmup_steps}")
        for name in ("base_lr", "lr"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"--{name} must be above 0, got {value}")
        if self.muon_lr <= 0:
            raise UserError(f"--muon_lr must be above 0, got {self.muon_lr}")
        if self.start_codes == "codebook" and self.vqvae is None:
            raise UserError("--start_codes codebook needs --vqvae, the VQGAN whose codebook it is")
        if self.weight_decay < 0:
            raise UserError(f"--weight_decay must not be negative, got {self.weight_decay}")


def learning_rate(accumulate: int | None, processes: int, batch_size: int, base_lr: float) -> float:
    """The published rule: batches per step, processes and clips per batch times the base rate."""
    return (accumulate or 1) * max(processes, 1) * batch_size * base_lr
