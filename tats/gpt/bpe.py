"""The byte-pair tokenizer of CLIP, which the published text models were trained with.

The vocabulary is a text file of merges, best first, that this package does not contain: see `ADDRESS`.
"""

import gzip
import html
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tats.flags import UserError

ADDRESS = "https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz"
SHA256 = "67603cfda2e032ad77b5f8808af37789d590db664b26df8705d2bf8b3c553fc8"  # of the unpacked text
MERGES = 48_894  # of the lines behind the header; the file has more
START, END = "<|startoftext|>", "<|endoftext|>"
_END_OF_WORD = "</w>"
_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class TextTooLong(UserError, RuntimeError):
    """A text with more ids than there is room for; a `RuntimeError` too, as in the published tokenizer."""


class ClipBPE:
    """Text to ids and back: 49408 ids, the last two being the start and the end of a text.

    path: the vocabulary, `.txt` or `.txt.gz`. Raises `UserError` where it is missing or another file.
    """

    def __init__(self, path: str | Path):
        merges = read_merges(Path(path))
        letters = list(byte_letters().values())
        words = letters + [letter + _END_OF_WORD for letter in letters]
        words += ["".join(merge) for merge in merges] + [START, END]
        self.ids = {word: index for index, word in enumerate(words)}
        self.words = words
        self.start, self.end = self.ids[START], self.ids[END]
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        self._letters = byte_letters()
        self._bytes = {letter: byte for byte, letter in self._letters.items()}
        self._pattern = _compiled_pattern()
        self._pieces = lru_cache(maxsize=1 << 16)(self._merge)

    def __len__(self) -> int:
        """Size of the vocabulary."""
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end. The text is cleaned and lower-cased first (`clean`)."""
        found: list[int] = []
        for word in self._pattern.findall(clean(text)):
            spelled = "".join(self._letters[byte] for byte in word.encode("utf-8"))
            found.extend(self.ids[piece] for piece in self._pieces(spelled))
        return found

    def decode(self, ids: Iterable[int], *, as_published: bool = True) -> str:
        """The text of ids, every word followed by one space.

        The published decoder drops the start, id 40407 (meant was the end, which stays as text) and id 0, which pads
        but also is "!". With `as_published=False` the text between start and end comes back, "!" included.
        """
        kept: list[int] = []
        for each in ids:
            index = int(each)
            if as_published:
                if index not in (self.start, 40407, 0):
                    kept.append(index)
            elif index == self.end:
                break
            elif index != self.start:
                kept.append(index)
        spelled = "".join(self.words[index] for index in kept)
        known = bytearray(self._bytes[letter] for letter in spelled if letter in self._bytes)
        return known.decode("utf-8", errors="replace").replace(_END_OF_WORD, " ")

    def tokenize(self, texts: str | Sequence[str], length: int = 77, truncate: bool = False) -> Tensor:
        """int64 [N, length]: start, ids, end, then zeros.

        Raises `TextTooLong` where a text is longer than `length` allows, unless `truncate` is set: then it is cut and
        ends with the end.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        return rows_of(texts, [[self.start, *self.encode(text), self.end] for text in texts], length, truncate)

    def _merge(self, spelled: str) -> list[str]:
        """The pieces of one word: neighbours are joined, the best merge first, until none is left."""
        if spelled in (START, END):
            return [spelled]
        pieces = [*spelled[:-1], spelled[-1] + _END_OF_WORD]
        while len(pieces) > 1:
            best = min(pairwise(pieces), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            joined: list[str] = []
            for piece in pieces:
                if joined and (joined[-1], piece) == best:
                    joined[-1] += piece
                else:
                    joined.append(piece)
            pieces = joined
        return pieces


def rows_of(texts: Sequence[str], ids: Sequence[list[int]], length: int, truncate: bool) -> Tensor:
    """Ids of texts, each with its start and end, as int64 [N, length], filled up with 0.

    Raises `TextTooLong` where there are more, unless `truncate` is set: then a row is cut and keeps its last id.
    """
    rows = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text, found in zip(rows, texts, ids):
        if len(found) > length:
            if not truncate:
                raise TextTooLong(
                    f"a text of {len(found)} ids does not fit into {length}: {text[:60]!r}; allow more or truncate"
                )
            found = [*found[: length - 1], found[-1]]
        row[: len(found)] = torch.tensor(found)
    return rows


def read_merges(path: Path) -> list[tuple[str, str]]:
    """The merges of a vocabulary file, best first."""
    where = f"It comes from {ADDRESS} (sha256 of the unpacked text {SHA256}): tats weights get clip-bpe"
    if not path.is_file():
        raise UserError(f"{path}: no such vocabulary of byte pairs. {where}")
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a vocabulary of byte pairs ({error}). {where}") from None
    merges = [tuple(line.split()) for line in text.split("\n")[1 : MERGES + 1]]
    if len(merges) < MERGES or any(len(merge) != 2 for merge in merges):
        raise UserError(f"{path}: not a vocabulary of byte pairs (a header, then {MERGES} pairs). {where}")
    return [(first, second) for first, second in merges]


def byte_letters() -> dict[int, str]:
    """A visible character for every byte, so that any text is spelled without spaces: printable ones stand for
    themselves, the others for what comes behind 255."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters.update({byte: chr(256 + place) for place, byte in enumerate(others)})
    return letters


def clean(text: str) -> str:
    """A text as the tokenizer sees it: broken encodings and HTML repaired, one space between words, lower case."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


def _compiled_pattern() -> Any:
    import regex

    return regex.compile(_PATTERN, regex.IGNORECASE)
