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
from tats.gpt.bpe import ClipBPE, byte_letters, clean, rows_of

SPECIAL = ("<pad>", "<start>", "<end>")  # ids 0, 1 and 2; none of them can be spelled
SMALLEST = len(SPECIAL) + 256  # every text can be spelled in bytes, so no caption meets an unknown id


class CaptionBPE:
    """Text to ids and back. Ids 0, 1 and 2 pad, start and end a text; then all bytes; then pairs that were joined.

    text: the JSON text of the `tokenizers` library, as `train` makes it. Raises `UserError` where it is something else.
    """

    def __init__(self, text: str, source: str = "the vocabulary of texts"):
        self.json = text
        self._tokenizer = _tokenizer(_library().models.BPE(*_read(text, source)))
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
    tokenizer = _tokenizer(library.models.BPE())
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(byte_letters().values()),
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


def _tokenizer(model: Any) -> Any:
    """Byte pairs in words, as `train` makes them, around a model of the library."""
    library = _library()
    tokenizer = library.Tokenizer(model)
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    return tokenizer


def _read(text: str, source: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids and pairs of a vocabulary; nothing else of the text counts.

    Raises:
        UserError: it is no vocabulary of this kind; the library would end with an error of its own.
    """
    wrong = f"{source}: not a vocabulary of `tats bpe`"
    try:
        content: Any = json.loads(text)
        model, words = content["model"], content["pre_tokenizer"]["type"]
        ids = {str(word): int(number) for word, number in model["vocab"].items()}
        merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]]
        known = all(len(pair) == 2 and {*pair, "".join(pair)} <= ids.keys() for pair in merges)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{wrong} ({' '.join(str(error).split())})") from None
    whole = sorted(ids.values()) == list(range(len(ids))) and {*byte_letters().values()} <= ids.keys()
    if (model.get("type"), words) != ("BPE", "ByteLevel") or not (known and whole):
        raise UserError(f"{wrong}: it must hold all bytes, and pairs of what is there")
    if [ids.get(name) for name in SPECIAL] != [0, 1, 2]:
        raise UserError(f"{wrong}: {', '.join(SPECIAL)} must have the ids 0, 1 and 2")
    return ids, [(first, second) for first, second in merges]


def _library() -> Any:
    """The `tokenizers` library, told not to start threads: workers of the data are forked beside it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
    except ImportError:
        raise UserError("vocabularies of captions need the package tokenizers: pip install tokenizers") from None
    return tokenizers
