"""Byte pairs that were trained on the captions of a data set: a few hundred ids where CLIP's vocabulary has 49408.

The vocabulary is the JSON text of the `tokenizers` library. It lies in the checkpoint of a transformer
(`GPTConfig.bpe`), so that a sentence is all that sampling needs.
"""

import json
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from tats.flags import UserError, existing_path
from tats.gpt.bpe import ClipBPE, clean, rows_of

PAD, START, END = "<pad>", "<start>", "<end>"  # ids 0, 1 and 2
BYTES = 256  # every text can be spelled in bytes, so no caption meets an unknown id
SMALLEST = BYTES + 3


class CaptionBPE:
    """Text to ids and back. Ids 0, 1 and 2 pad, start and end a text; then all bytes; then pairs that were joined.

    text: the JSON text of the `tokenizers` library, as `train` makes it. Raises `UserError` where it is something else.
    """

    def __init__(self, text: str, source: str = "the vocabulary of texts"):
        self.json = text
        _check(text, source)
        self._tokenizer = _library().Tokenizer.from_str(text)
        self._tokenizer.encode_special_tokens = True  # "<end>" in a caption is five characters and no end
        self._ids = lru_cache(maxsize=1 << 16)(lambda each: tuple(self._tokenizer.encode(each).ids))

    def __len__(self) -> int:
        """Size of the vocabulary."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end. The text is cleaned and lower-cased first, as for CLIP's pairs."""
        return list(self._ids(clean(text)))

    def decode(self, ids: Iterable[int]) -> str:
        """The text between start and end."""
        kept: list[int] = []
        for each in ids:
            if int(each) == 2:
                break
            if int(each) > 2:
                kept.append(int(each))
        return str(self._tokenizer.decode(kept)).strip()

    def tokenize(self, texts: str | Sequence[str], length: int, truncate: bool = False) -> Tensor:
        """int64 [N, length]: start, ids, end, then padding.

        Raises `tats.gpt.bpe.TextTooLong` where a text is longer than `length` allows, unless `truncate` is set: then it
        is cut and ends with the end.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        return rows_of(texts, [[1, *self.encode(text), 2] for text in texts], length, truncate)


def train(captions: Iterable[str], size: int) -> CaptionBPE:
    """A vocabulary of at most `size` ids: pairs that occur twice or more are joined, the most frequent first.

    The same captions give the same vocabulary. Raises `UserError` where `size` has no room for all bytes.
    """
    if size < SMALLEST:
        raise UserError(f"a vocabulary of {size} ids is too small: {SMALLEST} are the bytes, start, end and padding")
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[PAD, START, END],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator((clean(caption) for caption in captions), trainer)
    return CaptionBPE(tokenizer.to_str())


def read_vocabulary(path: str | Path) -> ClipBPE | CaptionBPE:
    """The vocabulary in a file: JSON, as `tats bpe` writes it, or the published list of pairs (.txt, .txt.gz)."""
    path = Path(path).expanduser()
    if path.suffix.lower() != ".json":
        return ClipBPE(path)
    try:
        return CaptionBPE(existing_path(path, "--bpe_path").read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a vocabulary of byte pairs ({error})") from None


@lru_cache(maxsize=4)
def of_checkpoint(text: str) -> CaptionBPE:
    """The vocabulary that lies in a checkpoint, built once."""
    return CaptionBPE(text)


def _check(text: str, source: str) -> None:
    """Raise `UserError` unless the text is a vocabulary of this kind, so that the library can read it."""
    wrong = f"{source}: not a vocabulary of `tats bpe`"
    try:
        model: Any = json.loads(text)["model"]
        ids, merges = (
            model["vocab"],
            [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]],
        )
        known = all(len(merge) == 2 and {*merge, "".join(merge)} <= ids.keys() for merge in merges)
        first = [ids.get(name) for name in (PAD, START, END)]
        whole = sorted(ids.values()) == list(range(len(ids)))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{wrong} ({' '.join(str(error).split())})") from None
    if model.get("type") != "BPE" or first != [0, 1, 2] or not known or not whole:
        raise UserError(f"{wrong}: ids 0, 1, 2 for {PAD}, {START}, {END}, then bytes, then pairs of what is there")


def _library() -> Any:
    """The `tokenizers` library, told not to start threads: workers of the data are forked beside it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
    except ImportError:
        raise UserError("vocabularies of captions need the package tokenizers: pip install tokenizers") from None
    return tokenizers
