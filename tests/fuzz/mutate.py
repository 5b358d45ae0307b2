"""Ways to break a file: byte by byte, and inside of what its format leaves intact.

Every function takes a `random.Random`, so that an input is known by its number.
"""

import ast
import io
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Bytes = Callable[[bytes, random.Random], bytes]

BORDERS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS = (*BORDERS, -1, -2, 2**32, 2**53, 2**63 - 1, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e-300, 1e308)
TEXTS = (
    "",
    " ",
    "x",
    "0",
    "-1",
    "nan",
    "None",
    "train",
    "../../../etc/passwd",
    "/etc/passwd",
    "a\x00b",
    "\x1b[2Jgone",
    "\u202egnp",
    "\ud800",
    "\U0001f600" * 40,
    "y" * 5000,
    "a/b",
    "\n\r\t",
    "!!python/object/apply:os.system",
    "<script>",
    "{}",
    "%s%n",
)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """A few bits, bytes or numbers are others; a piece is cut out, doubled, blanked or moved; or the end is missing."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8, 32))):
        _once(made, rng)
    return bytes(made)


def _once(made: bytearray, rng: random.Random) -> None:
    if not made:
        made += rng.randbytes(rng.randrange(64))
        return
    at = rng.randrange(len(made))
    length = min(rng.choice((1, 2, 4, 8, 16, 100, 1000)), len(made) - at)
    way = rng.randrange(9)
    if way in (0, 1):
        made[at] ^= 1 << rng.randrange(8)
    elif way == 2:
        made[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    elif way in (3, 4):
        number(made, at, rng)
    elif way == 5:
        del made[at : at + length]
    elif way == 6:
        made[at:at] = made[at : at + length] * rng.choice((1, 1, 2, 50))
    elif way == 7:
        made[at : at + length] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    elif rng.random() < 0.3:
        del made[at:]


def number(made: bytearray, at: int, rng: random.Random) -> None:
    """Write a number at the border of some type over the bytes at `at`."""
    size = rng.choice((1, 2, 4, 4, 4, 8))
    value = rng.choice(BORDERS) + rng.choice((0, 0, 0, 1, -1))
    size = min(size, len(made) - at)
    made[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, rng.choice(("big", "little")))


def numbers(data: bytes, rng: random.Random) -> bytes:
    """Some numbers are others; the length stays."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        if made:
            number(made, rng.randrange(len(made)), rng)
    return bytes(made)


def text(data: bytes, rng: random.Random) -> bytes:
    """Lines are doubled, lost, joined, very long, in no encoding, or hold what no line should; else as `flipped`."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    way = rng.randrange(7)
    if way == 0:
        return flipped(data, rng)
    if way == 1:
        lines[at] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
    elif way == 2:
        lines[at] += rng.choice((b"\xff\xfe", b"\x00", b"\t\t", b",,,", b'"', b"\r", b"\x1b[31m", b"#", b": :"))
    elif way == 3:
        del lines[at]
    elif way == 4:
        lines[at:at] = lines[at : at + 1] * rng.choice((1, 2, 1000))
    elif way == 5:
        lines[at] = lines[at] * rng.choice((2, 100, 10000))
    else:
        words = lines[at].split(b" ")
        words[rng.randrange(len(words))] = str(rng.choice(NUMBERS)).encode()
        lines[at] = b" ".join(words)
    return b"\n".join(lines)


def value(rng: random.Random, depth: int = 2) -> Any:
    """A plain value: often at the border of what its type can be."""
    way = rng.randrange(9)
    if way < 3:
        return rng.choice(NUMBERS)
    if way < 5:
        return rng.choice(TEXTS)
    if way < 7 or not depth:
        return rng.choice((None, True, False, float("nan"), float("inf"), [], {}))
    if way == 7:
        return [value(rng, depth - 1) for _ in range(rng.choice((1, 2, 3, 4, 100)))]
    return {rng.choice(TEXTS): value(rng, depth - 1) for _ in range(3)}


def tree(root: Any, rng: random.Random) -> Any:
    """A tree of dicts and lists with one or a few of its parts lost, doubled, or another value. `root` is changed."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        holders = [each for each in _inside(root) if each]
        if not holders or rng.random() < 0.02:
            root = value(rng)
            continue
        holder = rng.choice(holders)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        way = rng.randrange(8)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        elif way == 1:
            holder.insert(key, holder[key])
        elif way in (2, 3) and type(holder[key]) in (int, float):
            holder[key] = holder[key] + rng.choice((1, -1, 1 << 16, -(1 << 33), 0.5))
        elif way == 4:
            holder[key] = [holder[key]]
        else:
            holder[key] = value(rng)
    return root


def _inside(root: Any) -> list[Any]:
    found, waiting = [], [root]
    while waiting:
        each = waiting.pop()
        if isinstance(each, (dict, list)):
            found.append(each)
            waiting += each.values() if isinstance(each, dict) else each
    return found


def npy(data: bytes, rng: random.Random) -> bytes:
    """An array whose header says something else than its bytes, or whose bytes differ."""
    if data[:6] != b"\x93NUMPY" or rng.random() < 0.2:
        return flipped(data, rng)
    (length,) = struct.unpack("<H", data[8:10])
    try:
        head, body = ast.literal_eval(data[10 : 10 + length].decode()), data[10 + length :]
        shape = list(head["shape"]) or [1]
    except (ValueError, SyntaxError, TypeError, KeyError):  # another change has been here before
        return flipped(data, rng)
    way = rng.randrange(5)
    if way == 0:
        shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2, 5, -1, 2**31, 2**40, 2**62, "x", None, 1.5))
        head["shape"] = tuple(shape)
    elif way == 1:
        head["shape"] = tuple(rng.choice((0, 1, 2, 3, 4, 64)) for _ in range(rng.randrange(8)))
    elif way == 2:
        head["descr"] = rng.choice(
            (
                "|O",
                "<f8",
                "<f4",
                "|u1",
                "|b1",
                "<U99999999",
                "|S0",
                "<M8[ns]",
                ">i4",
                "<c16",
                [("a", "<i4"), ("b", "|O")],
                "zz",
                7,
            )
        )
    elif way == 3:
        head["fortran_order"] = rng.choice((True, False, "no", 2))
    else:
        body = flipped(body, rng) if rng.random() < 0.2 else numbers(body, rng)
    said = (repr(head) + " " * 16).encode()
    return data[:8] + struct.pack("<H", len(said)) + said + body


def zipped(data: bytes, rng: random.Random, inner: Callable[[str, bytes, random.Random], bytes]) -> bytes:
    """A zip file with one member broken by `inner`, renamed, lost, doubled or packed; or the file itself broken."""
    if rng.random() < 0.2:
        return flipped(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = [(info.filename, info.compress_type, file.read(info)) for info in file.infolist()]
    for _ in range(rng.choice((1, 1, 2))):
        if not members:
            break
        at = rng.randrange(len(members))
        name, kind, content = members[at]
        way = rng.randrange(12)
        if way == 0:
            name = rng.choice(("../" + name, "/" + name, name + "\x01", "a/" * 300 + name, "C:\\" + name, "." + name))
        elif way == 1:
            del members[at]
            continue
        elif way == 2:
            members.append(members[at])
        elif way == 3:
            kind = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED))
        elif way == 4:
            kind, content = zipfile.ZIP_DEFLATED, bytes(4 << 20)
        else:
            content = inner(name, content, rng)
        members[at] = (name, kind, content)
    return _zip(members, rng)


def _zip(members: list[tuple[str, int, bytes]], rng: random.Random) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, kind, content in members:
            about = zipfile.ZipInfo(name)
            about.compress_type = kind
            if rng.random() < 0.03:
                about.external_attr = rng.choice((0o120777, 0o010644, 0o060644)) << 16
            file.writestr(about, content)
    return made.getvalue()


def behind(first: int, change: Bytes) -> Bytes:
    """As `change`, but the first bytes of the file stay, by which its form is known."""
    return lambda data, rng: data[:first] + change(data[first:], rng)


def headers(share: float) -> Bytes:
    """Numbers in the first `share` of the file are others, or it is `flipped` as a whole: every second time each."""

    def change(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return flipped(data, rng)
        made = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            number(made, rng.randrange(max(int(len(made) * share), 1)), rng)
        return bytes(made)

    return change
