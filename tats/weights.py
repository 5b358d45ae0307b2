"""Where weights lie on this machine, and where they come from.

    tats weights list
    tats weights get ucf101-vqgan

A name is looked for as a path, in the folder `$TATS_WEIGHTS`, and in the cache (`~/.cache/tats`, or below
`$XDG_CACHE_HOME`). Nothing is fetched unless `tats weights get` asks for it.
"""

import gzip
import hashlib
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

from tats.flags import UserError, existing_path, nearest
from tats.released import ALL, MODELS, NETWORKS, Released

PIECE = 1 << 20  # bytes read at a time
TIMEOUT = 30  # seconds without an answer
USAGE = """usage: tats weights list
       tats weights get NAME [--to FOLDER]

Fetches a released model or network into $TATS_WEIGHTS, or else the cache; every flag that takes a checkpoint takes its
name then. Without `get` nothing is fetched.
"""


def cache() -> Path:
    """The folder for fetched files when `$TATS_WEIGHTS` names none."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tats"


def folders() -> list[Path]:
    """Where names are looked for, in this order."""
    chosen = os.environ.get("TATS_WEIGHTS")
    return [*([Path(chosen).expanduser()] if chosen else []), cache()]


def find(name: str | Path, flag: str = "") -> Path:
    """The file or folder that `name` means: a path, or the name of something fetched or put into a weights folder.

    `flag` is named in errors. Raises `UserError` with the nearest name, its address and the command that fetches it.
    """
    path, text = Path(name).expanduser(), str(name)
    if not text:
        raise UserError(f"{flag or 'checkpoint'}: no path given (a file, a folder, or a name of: tats weights list)")
    if path.exists():
        return path
    files = [text, *([ALL[text].file] if text in ALL else [])]
    for folder in folders():
        for file in files:
            if (folder / file).exists():
                return folder / file
    given = f"{flag} {text}".strip()
    if text in ALL:
        raise UserError(f"{given} has not been fetched. {how_to_get(ALL[text])}")
    near = re.search(r"'(.+)'", nearest(text, ALL))
    if near and not path.suffix and path.parent == Path("."):
        raise UserError(f"{given} is no file and no known model; did you mean {near[1]}? {how_to_get(ALL[near[1]])}")
    return existing_path(path, flag or "checkpoint")


def verify(path: Path) -> None:
    """Compare a file that carries the name of a released one with its checksum, where that is known.

    Raises:
        UserError: it is another file, or a damaged one.
    """
    stated = next((entry for entry in ALL.values() if entry.file == path.name and entry.sha256), None)
    if stated is not None and stated.sha256 is not None and path.is_file():
        found = sha256(path)
        if not found.startswith(stated.sha256):
            raise UserError(
                f"{path} is not the file of its name: its sha256 is {found}, that of {stated.name} begins with "
                f"{stated.sha256}. Remove it, then: tats weights get {stated.name}"
            )


def how_to_get(entry: Released) -> str:
    """One sentence: the command, the address, and where to put the file by hand."""
    where = folders()[0] / entry.file
    if not entry.address:
        return f"It {entry.note}, to {where}"
    note = f"; {entry.note}" if entry.note else ""
    return f"Fetch it with: tats weights get {entry.name} (from {entry.address}{note}), or put it at {where}"


def get(name: str, folder: str | Path | None = None, say: Callable[[str], None] | None = None) -> Path:
    """Fetch a file and check it; gives its path. A file that is there already is kept.

    folder: where to put it (default: the first of `folders()`). say: takes lines of progress (default: standard error).
    Raises `UserError` for an unknown name, an address that does not answer with the file, a wrong size or checksum.
    """
    if name not in ALL:
        raise UserError(f"unknown name {name!r}{nearest(name, ALL)} (all names: tats weights list)")
    entry, say = ALL[name], say or (lambda line: print(line, file=sys.stderr))
    target = (Path(folder).expanduser() if folder else folders()[0]) / entry.file
    if target.exists():
        say(f"{target} is there already")
        return target
    if not entry.address:
        raise UserError(f"{name} can't be fetched: it {entry.note}, to {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    say(f"{entry.what}: {entry.address} -> {target}")
    try:
        with part.open("wb") as file:
            for piece in _pieces(entry, say):
                file.write(piece)
        _check(entry, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def direct(address: str) -> str:
    """The address that answers with the file itself, for pages that only lead to it."""
    drive = re.match(r"https://drive\.google\.com/file/d/([\w-]+)", address)
    if drive:
        return f"https://drive.usercontent.google.com/download?id={drive[1]}&export=download&confirm=t"
    if "dropbox.com/" in address:
        return re.sub(r"dl=0$", "dl=1", address)
    return address


def _pieces(entry: Released, say: Callable[[str], None]) -> Iterator[bytes]:
    """The file, piece by piece, with a line of progress for every tenth."""
    request = urllib.request.Request(direct(entry.address), headers={"User-Agent": "tats-weights"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if "text/html" in answer.headers.get("Content-Type", ""):
                raise UserError(
                    f"{entry.address} answers with a page instead of the file: open it in a browser, download there, "
                    f"and put the file at {folders()[0] / entry.file}"
                )
            total = int(answer.headers.get("Content-Length") or 0)
            done, told = 0, 0
            while piece := answer.read(PIECE):
                done += len(piece)
                if total and done * 10 // total > told:
                    told = done * 10 // total
                    say(f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB ({100 * done // total} %)")
                yield piece
            if total and done != total:
                raise UserError(f"{entry.address} stopped after {done:,} of {total:,} bytes: try again")
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise UserError(
            f"{entry.address} does not answer with the file ({error}): try again later, or put it by hand at "
            f"{folders()[0] / entry.file}"
        ) from None


def _check(entry: Released, path: Path) -> None:
    """Size and checksum of what has arrived, where they are known."""
    size = path.stat().st_size
    if entry.size is not None and size != entry.size:
        raise UserError(f"{entry.address}: {size:,} bytes arrived, the file has {entry.size:,}: try again")
    found = sha256(path)
    if entry.sha256 is not None and not found.startswith(entry.sha256):
        raise UserError(f"{entry.address}: what arrived has the sha256 {found}, not {entry.sha256}; it was thrown away")
    if entry.unpacked_sha256 is not None:
        try:
            found = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        except (OSError, EOFError) as error:
            raise UserError(f"{entry.address}: what arrived is no packed file ({error}); it was thrown away") from None
        if found != entry.unpacked_sha256:
            raise UserError(
                f"{entry.address}: what arrived unpacks to the sha256 {found}, not {entry.unpacked_sha256}; "
                "it was thrown away"
            )


def sha256(path: Path) -> str:
    """The checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def table() -> str:
    """Every name, what it is, and whether it is on this machine."""
    lines = []
    for title, entries in (("models", MODELS), ("networks", NETWORKS)):
        lines.append(f"{title}:")
        for entry in entries:
            places = [folder / file for folder in folders() for file in (entry.name, entry.file)]
            here = next((str(place) for place in places if place.exists()), "not here")
            facts = [f"about {entry.megabytes:g} MB"] if entry.megabytes else []
            facts += [f"takes {entry.takes}"] if entry.takes else []
            facts += [f"licence: {entry.licence}"] if entries is NETWORKS else []
            lines.append(f"  {entry.name:32}{entry.what}\n{'':34}{entry.address or entry.note}")
            lines += [f"{'':34}{line}" for line in ("; ".join(facts), here) if line]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """`tats weights list | get NAME [--to FOLDER]`"""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or "--help" in words or "-h" in words:
        print(USAGE, end="")
    elif words == ["list"]:
        print(table())
    elif words[0] == "get" and (len(words) == 2 or (len(words) == 4 and words[2] == "--to")):
        print(get(words[1], words[3] if len(words) == 4 else None))
    else:
        raise UserError(
            f"tats weights {' '.join(words)} is neither 'tats weights list' nor 'tats weights get NAME [--to FOLDER]'"
        )
