"""Members of a zip file, read without trusting what the file says of itself.

    archive = SafeZip("videos.zip")
    archive.names                     # the files in it, sorted: relative paths with forward slashes
    archive.read("a/00001.jpg")       # bytes; never more than the file has announced

Nothing is ever unpacked to the disk. Refused are names that lead elsewhere (absolute, with `..`, a drive, a backslash
or control characters), names that stand twice, links and other things that are no file, encrypted members, ways of
packing other than "stored" and "deflated", and members that would grow beyond `RATIO` times their packed size or beyond
`--max_unpacked_mb`.
"""

import os
import stat
import struct
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

from tats import limits
from tats.flags import UserError
from tats.reader import ReadError

RATIO = 200  # times its packed size that a member may have; deflate reaches 1032 on a file of one repeated byte
SMALL = 1 << 20  # bytes below which the ratio does not matter: a small picture of one colour packs well
PACKED = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
FILES = 0o170000  # the bits of a Unix mode that say what kind of thing it is
# what a damaged file makes the reader raise
BROKEN = (zipfile.BadZipFile, OSError, ValueError, EOFError, LookupError, NotImplementedError, RuntimeError,
          OverflowError, struct.error, zlib.error)  # fmt: skip


class SafeZip:
    """A zip file for reading; workers may share it: each process opens the file for itself.

    names: its files, sorted. Raises `UserError` where it is no zip, or holds what a data set never needs.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise UserError(f"{path}: no such file")
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self._lock = threading.Lock()
        try:
            listed = self._file().infolist()
        except BROKEN as error:
            raise UserError(f"{path} is no zip file, or cut short: {reason(error)}") from None
        self._members = self._checked(listed)
        self.names = sorted(self._members)

    def size(self, name: str) -> int:
        """Bytes of a member, unpacked."""
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        """The content of a member.

        Raises:
            ReadError: it is damaged, or not what its entry says.
        """
        member = self._members[name]
        try:
            with self._lock, self._file().open(member) as file:
                data = file.read(member.file_size)
                more = file.read(1)  # reading to the end compares the checksum
        except BROKEN as error:
            raise ReadError(f"{self.path}: {name}: {reason(error)}") from None
        if len(data) != member.file_size or more:
            raise ReadError(f"{self.path}: {name}: {len(data)} bytes, its entry says {member.file_size}")
        return data

    def close(self) -> None:
        """Close the file; the next `read` opens it again."""
        if self._opened is not None and self._opened[0] == os.getpid():
            self._opened[1].close()
        self._opened = None

    def __enter__(self) -> "SafeZip":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_opened", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._opened, self._lock = None, threading.Lock()  # an open file does not travel to another process

    def _file(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), zipfile.ZipFile(self.path))
        return self._opened[1]

    def _checked(self, listed: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for member in listed:
            wrong = wrong_name(member.filename) or wrong_kind(member) or wrong_size(member)
            if wrong is None and member.filename in members:
                wrong = "stands twice in the file"
            if wrong is not None:
                raise UserError(f"{self.path}: refused, because its member {member.filename[:200]!r} {wrong}")
            if not member.is_dir():
                members[member.filename] = member
        return members


def wrong_name(name: str) -> str | None:
    """What is wrong with the name of a member, None when it is a plain relative path."""
    parts = name.rstrip("/").split("/")
    if not name or name.startswith("/") or name[1:2] == ":":
        return "has an absolute name"
    if ".." in parts:
        return "leads out of the folder (..)"
    if "\\" in name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "has a backslash or a control character in its name"
    if "" in parts or "." in parts:
        return "has an empty part or a '.' in its name"
    return None


def wrong_kind(member: zipfile.ZipInfo) -> str | None:
    """What a member is, when it is no file or folder that can be read; else None."""
    kind = (member.external_attr >> 16) & FILES
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # 0: written by a system without such modes
        return "is a link" if kind == stat.S_IFLNK else "is no plain file"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in PACKED:  # others unpack without a bound on memory
        return f"is packed in the way {member.compress_type}; {' and '.join(PACKED.values())} are read"
    return None


def wrong_size(member: zipfile.ZipInfo) -> str | None:
    """What is wrong with the announced sizes of a member, else None. No more than announced is ever unpacked."""
    packed, size = member.compress_size, member.file_size
    if size > SMALL and size > RATIO * max(packed, 1):
        return f"would grow from {packed:,} to {size:,} bytes, more than {RATIO} times; pack it anew, stored"
    return limits.problem("max_unpacked_mb", size / 1e6, "would be {:,.0f} MB")


def reason(error: BaseException) -> str:
    """What went wrong, in one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
