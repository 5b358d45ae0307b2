"""What a transformer over codes is: the flags of its architecture and the sizes that follow from its data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tats.flags import UserError, arg, nearest

TEXT_VOCABULARY = 49408  # ids of the published byte-pair tokenizer
PUBLISHED_VTOKENS = 16384  # the published training from codes knows no other codebook size
CONDITIONS = ("label", "text", "stft", "smap")  # what a condition may be, in the order of the sequence


@dataclass(frozen=True)
class Part:
    """One of the conditions of a transformer: `n_cond` tokens from `start` on in the sequence, with the `n_ids` ids of
    the common vocabulary from `first_id` on. With `empty`, the last of these ids says that nothing is given."""

    key: str
    n_cond: int
    n_ids: int
    start: int = 0
    first_id: int = 0
    empty: bool = False

    @property
    def values(self) -> int:
        """How many ids stand for something: 0 to `values` - 1, counted from `first_id`."""
        return self.n_ids - self.empty

    @property
    def empty_id(self) -> int:
        """The id, in the common vocabulary, that says that nothing is given."""
        if not self.empty:
            raise ValueError("this transformer was trained without empty conditions")
        return self.first_id + self.n_ids - 1


@dataclass(frozen=True)
class GPTConfig:
    """How codes are modelled. The flags of train_transformer.py; stored in every checkpoint.

    Fields without a flag follow from the VQGAN, the data and the condition: a checkpoint is rebuilt from this alone.
    """

    n_layer: int = arg(48, "number of blocks")
    n_head: int = arg(24, "attention heads; must divide --n_embd")
    n_embd: int = arg(1536, "width of one token")
    block_size: int = arg(256, "positions of one window: condition plus codes, less the last code; 0: what fits")
    n_unmasked: int = arg(0, "codes of the first and of the last frame that every position sees; 0: plain causal")
    sample_every_n_latent_frames: int = arg(0, "keep every n-th latent frame only (coarse model); 0 or 1: all")
    unconditional: bool = arg(False, "no condition but one start token")
    cond_stage_key: str = arg("label", "what the condition is: label, text, stft, smap; several as in label+text")
    vtokens_pos: bool = arg(False, "learn a table of absolute places, for pictures beyond the trained size")
    n_codes: int = arg(16384, "size of the codebook", flag=False)
    code_offset: int = arg(0, "first id of a code; ids before it belong to the condition", flag=False)
    latent_shape: tuple[int, int, int] = arg((4, 16, 16), "latent frames, rows and columns of one window", flag=False)
    n_cond: int = arg(1, "tokens of the condition", flag=False)
    conditions: tuple[tuple[str, int, int], ...] = arg(
        (), "parts of the condition: what it is, tokens, ids; empty: one part of n_cond tokens", flag=False
    )
    empty: bool = arg(False, "the last id of every part says that nothing is given", flag=False)
    parts_optional: bool = arg(False, "parts were left out one by one in training: some may be missing", flag=False)
    bpe: str | None = arg(None, "byte pairs of the texts, as JSON; none: those of CLIP", flag=False)
    sos_token: int = arg(0, "id of the start token of an unconditional model", flag=False)
    label_names: list[str] | None = arg(None, "names of the classes, by id", flag=False)
    places_shape: tuple[int, int, int] | None = arg(None, "frames, rows, columns of the table of places", flag=False)

    def __post_init__(self) -> None:
        if self.n_head < 1 or self.n_embd % self.n_head:
            raise UserError(f"--n_embd {self.n_embd} can't be split into --n_head {self.n_head} equal heads")
        if self.n_unmasked < 0:
            raise UserError(f"--n_unmasked counts codes, got {self.n_unmasked}")
        given = self.cond_stage_key.split("+")
        for key in given:
            if key not in CONDITIONS or given.count(key) > 1:
                raise UserError(
                    f"--cond_stage_key takes {', '.join(CONDITIONS)}, or several of them joined by + (label+text); got "
                    f"'{self.cond_stage_key}'{nearest(key, CONDITIONS) if key not in CONDITIONS else ''}"
                )

    @property
    def vocabulary(self) -> int:
        """Ids of condition and codes together."""
        return self.code_offset + self.n_codes

    @property
    def keys(self) -> tuple[str, ...]:
        """What the condition is, in the order of the sequence: some of `CONDITIONS`, or nothing."""
        given = () if self.unconditional else self.cond_stage_key.split("+")
        return tuple(key for key in CONDITIONS if key in given)

    @property
    def key(self) -> str:
        """The same in one word: `none`, `label`, `text`, `stft`, `smap`, or several as `label+text`."""
        return "+".join(self.keys) or "none"

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the condition in the order of the sequence; none where there is a start token only."""
        stored = self.conditions or tuple((key, self.n_cond, self.code_offset) for key in self.keys)
        found: list[Part] = []
        start = first_id = 0
        for key, n_cond, n_ids in stored:
            found.append(Part(key, n_cond, n_ids, start, first_id, self.empty))
            start, first_id = start + n_cond, first_id + n_ids
        return tuple(found)

    def part(self, key: str) -> Part | None:
        """The part of the condition that is `key`; None where the condition has none."""
        return next((part for part in self.parts if part.key == key), None)

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 where labels are no part of the condition."""
        part = self.part("label")
        return part.values if part else 0

    @property
    def stride(self) -> int:
        """Latent frames from one frame of a window to the next."""
        return max(self.sample_every_n_latent_frames, 1)

    @property
    def degenerate(self) -> bool:
        """True when the published mask with these anchors lets codes see themselves or overlaps itself."""
        return self.n_unmasked == 1 or 2 * self.n_unmasked >= self.block_size > 0 < self.n_unmasked

    @property
    def ends(self) -> tuple[int, int]:
        """Anchors in front (condition and first frame) and at the end (last frame but its final code)."""
        return (self.n_cond + self.n_unmasked, self.n_unmasked - 1) if self.n_unmasked else (0, 0)

    def fitted(
        self,
        latent_shape: tuple[int, int, int],
        n_codes: int,
        conditions: Sequence[tuple[str, int, int]] = (),
        *,
        label_names: Sequence[str] | None = None,
        places_shape: tuple[int, int, int] | None = None,
        empty: bool = False,
        parts_optional: bool = False,
        bpe: str | None = None,
    ) -> "GPTConfig":
        """This architecture for the data at hand: the sizes that have no flags, and a window that fits.

        latent_shape: latent frames (after --sample_every_n_latent_frames), rows and columns of one clip. conditions:
        (what, tokens, ids) of each of `keys`, in their order; none without condition. empty: every part gets one id
        more, its last, which says that nothing is given. parts_optional, bpe: see the fields. Raises UserError where
        --block_size or --n_unmasked do not fit these sizes.
        """
        if tuple(key for key, _, _ in conditions) != self.keys:
            raise ValueError(f"conditions must be the parts of {self.key}, got {[key for key, _, _ in conditions]}")
        parts = tuple((key, tokens, ids + empty) for key, tokens, ids in conditions)
        n_cond = sum(tokens for _, tokens, _ in parts) or 1
        t, h, w = latent_shape
        needed = n_cond + t * h * w - 1
        window = f"{n_cond} of the condition and {t}x{h}x{w} codes, less the last"
        wrong = self.block_size < needed or (self.n_unmasked and self.block_size != needed)
        if self.block_size and wrong:
            raise UserError(f"--block_size {self.block_size} does not fit: a window has {needed} positions ({window})")
        if self.n_unmasked and (self.n_unmasked != h * w or t < 3 or h * w < 2):
            raise UserError(
                f"--n_unmasked {self.n_unmasked} does not fit: to fill in frames it must be the {h * w} codes of one "
                f"latent frame, in windows of at least 3 latent frames (here {t})"
            )
        return replace(
            self,
            block_size=self.block_size or needed,
            latent_shape=latent_shape,
            n_codes=n_codes,
            code_offset=sum(ids for _, _, ids in parts),
            n_cond=n_cond,
            conditions=parts,
            empty=empty,
            parts_optional=parts_optional,
            bpe=bpe,
            label_names=list(label_names) if label_names is not None else None,
            places_shape=places_shape,
        )

    @classmethod
    def from_published(
        cls,
        args: Mapping[str, Any],
        shapes: Mapping[str, Sequence[int]],
        *,
        hyper_parameters: Mapping[str, Any] | None = None,
        downsample: tuple[int, int, int] | None = None,
        n_codes: int | None = None,
        n_cond: int = 1,
    ) -> "GPTConfig":
        """The configuration of a released checkpoint.

        args: its stored command line as a dict. shapes: shape of every entry of its state dict, with or without the
        prefix `transformer.`; sizes come from here. hyper_parameters: what stands beside `args` (cond_stage_key,
        sos_token). downsample: of the VQGAN that belongs to it, needed to tell the latent shape of models trained from
        pixels. n_codes: size of that VQGAN's codebook; the rest of the vocabulary is the condition's. n_cond: tokens of
        a condition that is not a label (the file does not say how many).
        """
        hyper = hyper_parameters or {}
        shapes = {name.removeprefix("transformer."): tuple(shape) for name, shape in shapes.items()}
        vocabulary, width = shapes["tok_emb.weight"]
        layers = {int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")}
        unconditional = bool(args.get("unconditional", False))
        key = "label" if unconditional else hyper.get("cond_stage_key", args.get("cond_stage_key", "label"))
        stored = shapes.get("first_stage_model.codebook.embeddings")
        codes = n_codes or (stored[0] if stored else None) or _codes_without_vqgan(args, vocabulary, unconditional, key)
        table = shapes.get("vtokens_pos_emb")
        return cls(
            n_layer=len(layers),
            n_head=int(args["n_head"]),
            n_embd=width,
            block_size=shapes["pos_emb"][1],
            n_unmasked=int(args.get("n_unmasked", 0) or 0),
            sample_every_n_latent_frames=int(args.get("sample_every_n_latent_frames", 0) or 0),
            unconditional=unconditional,
            cond_stage_key=key,
            vtokens_pos=table is not None,
            n_codes=codes,
            code_offset=vocabulary - codes,
            latent_shape=_published_latent_shape(args, shapes["pos_emb"][1], n_cond, downsample),
            n_cond=1 if unconditional or key == "label" else n_cond,
            sos_token=int(hyper.get("sos_token", 0) or 0),
            places_shape=(table[1], table[2], table[3]) if table is not None else None,
        )


def _codes_without_vqgan(args: Mapping[str, Any], vocabulary: int, unconditional: bool, key: str) -> int:
    """Size of the codebook when the file holds no VQGAN."""
    if unconditional:
        return vocabulary
    if key == "text":
        return vocabulary - TEXT_VOCABULARY
    if key == "label" and args.get("class_cond_dim"):
        return vocabulary - int(args["class_cond_dim"])
    return PUBLISHED_VTOKENS


def _published_latent_shape(
    args: Mapping[str, Any], block_size: int, n_cond: int, downsample: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    """Latent frames, rows and columns of one window of a released model."""
    stride = max(int(args.get("sample_every_n_latent_frames", 0) or 0), 1)
    frames, side = int(args.get("sequence_length", 0)), int(args.get("spatial_length", 0) or 0)
    if args.get("vtokens") or (args.get("vtokens_pos") and side and side * side <= block_size):
        rows, columns = side, side  # such models count in latent units
    elif downsample is None:
        rows = columns = round((block_size / 4) ** 0.5)  # four latent frames of square pictures, as published
        frames = stride * block_size
    else:
        rows, columns = (int(args["resolution"]) // factor for factor in downsample[1:])
        frames //= downsample[0]
    fitting = (block_size + 1 - n_cond) // (rows * columns)
    return (max(min(-(-frames // stride), fitting), 1), rows, columns)
