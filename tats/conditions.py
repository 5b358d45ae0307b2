"""What the videos of a sampling run are conditioned on: from flags to what the functions of `tats.gpt.api` take.

Classes, sentences and maps take turns: video 0 gets the first of each, video 1 the second, ...
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tats import checkpoint
from tats.codes_file import Video
from tats.flags import UserError, existing_path
from tats.gpt.bpe import ADDRESS, SHA256, TextTooLong
from tats.gpt.condition import label_id
from tats.gpt.config import GPTConfig
from tats.gpt.sample_config import OutputConfig
from tats.gpt.vocabulary import of_checkpoint, read_vocabulary
from tats.map_files import find_maps, map_codes
from tats.vqgan.model import VQGAN

MOST_LINES = 10_000_000  # bytes of a file of sentences


@dataclass(frozen=True)
class Conditions:
    """The condition of every video of a run, each by turns: `labels`, class ids; `texts` and their ids `tokens` int64
    [n, L]; `maps`, files, and their codes `smap` int64 [n, t, h, w] or [n, windows, t, h, w]. None without."""

    labels: list[int] | None = None
    texts: list[str] | None = None
    tokens: Tensor | None = None
    maps: list[Path] | None = None
    smap: Tensor | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the codes depend on, beside the labels, which every video has written beside it."""
        found: dict[str, Any] = {"text": None}
        if self.texts is not None:
            found["text"] = self.texts if len(self.texts) > 1 else self.texts[0]
        if self.smap is not None:
            found["smap_codes"] = hashlib.sha256(self.smap.cpu().numpy().tobytes()).hexdigest()[:16]
        return found

    def of(self, videos: Sequence[Video]) -> dict[str, Any]:
        """The condition of some videos, as the functions of `tats.gpt.api` take it."""
        given: dict[str, Any] = {}
        if self.labels is not None:
            given["label"] = [video.label for video in videos]
        if self.tokens is not None:
            given["text"] = self.tokens[[video.index % len(self.tokens) for video in videos]]
        if self.smap is not None:
            given["smap"] = self.smap[[video.index % len(self.smap) for video in videos]]
        return given

    @property
    def entries(self) -> dict[str, Any]:
        """What stands beside each video in the manifest: name -> function of the video."""
        named = {"text": self.texts, "smap": None if self.maps is None else [path.name for path in self.maps]}
        return {name: partial(_turn, row) for name, row in named.items() if row is not None}


def _turn(row: Sequence[str], video: Video) -> str:
    """What the turn of a video is."""
    return row[video.index % len(row)]


def conditions_of(
    config: GPTConfig,
    wanted: OutputConfig,
    vqgan: VQGAN | None = None,
    total: int = 0,
    by_window: bool = False,
    sound: bool = False,
) -> Conditions:
    """The conditions that the flags ask for, for videos of `total` latent frames of `vqgan`, which only transformers
    by semantic maps need to know. by_window: see `tats.map_files.map_codes`. sound: a sound is given beside them.

    Classes take turns without --label, unless the transformer can do without and something else is given.

    Raises:
        UserError: they are not those of the transformer, or a class, a file or a sentence is wrong.
    """
    by_class = "label" in config.keys
    optional = config.parts_optional
    if wanted.class_cond is not None and wanted.class_cond != by_class and not (optional and by_class):
        has = "makes videos by class" if by_class else "knows no classes"
        flag = "--class_cond" if wanted.class_cond else "--no_class_cond"
        raise UserError(f"{flag} does not go with this transformer, which {has}: leave it out")
    if wanted.label and not by_class:
        raise UserError("--label is for transformers that make videos by class, which this one does not")
    if wanted.text is None and "text" in config.keys and not optional:
        raise UserError("this transformer is conditioned on text: --text is needed, a sentence or a file of them")
    if wanted.text is not None and "text" not in config.keys:
        raise UserError("--text is for transformers conditioned on text, which this one is not")
    others = sound or wanted.text is not None or wanted.smap is not None
    left_out = wanted.class_cond is False or (others and wanted.class_cond is None and not wanted.label)
    labels = None if not by_class or (optional and left_out) else _labels(config, wanted.label)
    texts = None if wanted.text is None else sentences(wanted.text)
    tokens = None if texts is None else tokens_of(config, wanted, texts)
    return Conditions(labels, texts, tokens, *_maps(config, wanted, vqgan, total, by_window))


def _maps(
    config: GPTConfig, wanted: OutputConfig, vqgan: VQGAN | None, total: int, by_window: bool
) -> tuple[list[Path], Tensor] | tuple[()]:
    """The files of semantic maps and their codes; nothing where the transformer takes none."""
    if "smap" not in config.keys:
        if wanted.smap is not None:
            raise UserError("--smap is for transformers conditioned on semantic maps, which this one is not")
        return ()
    if wanted.smap is None and config.parts_optional:
        return ()
    if wanted.smap is None or wanted.smap_vqgan_ckpt is None:
        raise UserError(
            "this transformer is conditioned on semantic maps: --smap is needed, a .npy file or a folder of them, and "
            "--smap_vqgan_ckpt, their VQGAN"
        )
    if vqgan is None:
        raise UserError("transformers conditioned on semantic maps are sampled by the scripts that take --smap")
    paths = find_maps(wanted.smap)
    maps = checkpoint.load_vqgan(wanted.smap_vqgan_ckpt, next(vqgan.parameters()).device)
    return paths, map_codes(paths, config, vqgan, maps, total, by_window)


def _labels(config: GPTConfig, asked: Sequence[str] | None) -> list[int]:
    """Class ids as --label says; all of them without it."""
    labels = [label_id(config, one) for one in asked] if asked else list(range(config.n_classes))
    wrong = [label for label in labels if not 0 <= label < config.n_classes]
    if wrong:
        raise UserError(f"--label {wrong[0]}: this transformer knows classes 0 to {config.n_classes - 1}")
    return labels


def sentences(text: str) -> list[str]:
    """What --text asks for: the lines of the file of that name, or the one sentence that it is.

    Raises:
        UserError: no such file, or it holds no text.
    """
    if " " not in text.strip() and Path(text).suffix.lower() == ".txt":
        existing_path(text, "--text")
    try:
        is_file = Path(text).is_file()
    except OSError:  # a sentence longer than names of files may be
        is_file = False
    if not is_file:
        if not text.strip():
            raise UserError("--text takes a sentence, or a file with a sentence per line; got nothing")
        return [text]
    path = Path(text)
    if path.stat().st_size > MOST_LINES:
        raise UserError(f"--text {text}: more than {MOST_LINES:,} bytes, which is no file of sentences")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--text {text}: {error}") from None
    if not lines:
        raise UserError(f"--text {text}: the file holds no text; write a sentence per line")
    return lines


def tokens_of(config: GPTConfig, wanted: OutputConfig, texts: list[str]) -> Tensor:
    """The ids of sentences, by the byte pairs that the transformer was trained with."""
    part = config.part("text")
    if part is None:
        raise ValueError("this transformer takes no text")
    if config.bpe is not None:
        if wanted.bpe_path is not None:
            raise UserError("--bpe_path: this transformer holds the byte pairs of its texts itself; leave it out")
        pairs: Any = of_checkpoint(config.bpe)
    elif wanted.bpe_path is None:
        raise UserError(
            f"this transformer takes CLIP's byte pairs and does not hold them: --bpe_path is needed, the file of "
            f"{ADDRESS} (sha256 of the unpacked text {SHA256}); `tats weights get clip-bpe` fetches it"
        )
    else:
        pairs = read_vocabulary(wanted.bpe_path)
    if len(pairs) != part.values:
        raise UserError(f"--bpe_path {wanted.bpe_path} has {len(pairs)} ids, this transformer knows {part.values}")
    try:
        return pairs.tokenize(texts, part.n_cond, wanted.truncate_captions)
    except TextTooLong as error:
        raise UserError(f"--text: {error} (--truncate_captions)") from None
