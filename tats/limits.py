"""How large a thing from a file may be: a header of a few bytes can announce a picture of terabytes.

Every command takes these limits as flags (`--max_pixels`, ...). They hold for the whole program and for the processes
it starts, so they lie in its environment, as `TATS_MAX_PIXELS` and so on, where they may also be set from outside.
"""

import os
from collections.abc import Mapping

from tats.flags_values import UserError

LIMITS = {  # name -> (default, what it bounds)
    "max_pixels": (1 << 26, "pixels that one picture or frame of a file may have (two 8K pictures are below)"),
    "max_frames": (5_000_000, "frames that one video or animation may have (46 hours at 30 per second)"),
    "max_seconds": (172_800, "seconds that one video or sound may last (two days)"),
    "max_unpacked_mb": (4_096, "megabytes that one packed part of a file may unpack to"),
}


class TooLarge(UserError):
    """Something in a file is larger than a limit allows. The message names the flag that raises the limit."""


def variable(name: str) -> str:
    """The environment variable of a limit."""
    return f"TATS_{name.upper()}"


def limit(name: str) -> int:
    """The present value of a limit.

    Raises:
        UserError: its environment variable holds no positive integer.
    """
    text = os.environ.get(variable(name))
    if text is None:
        return LIMITS[name][0]
    if not text.strip().isdecimal() or int(text) < 1:
        raise UserError(f"the environment says {variable(name)}={text[:40]}: give an integer of 1 or more")
    return int(text)


def usual(name: str, values: Mapping[str, int]) -> bool:
    """Whether a limit has the value that it has when nobody sets it."""
    return values.get(name) == LIMITS[name][0]


def use(values: Mapping[str, int]) -> None:
    """Set limits for this program and the processes that it starts from now on.

    Raises:
        UserError: a value below 1.
    """
    for name, value in values.items():
        if value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
        if value != limit(name):
            os.environ[variable(name)] = str(value)


def problem(name: str, value: float, said: str = "{:,.0f}") -> str | None:
    """What to say when `value` is above the limit `name`, with `said` around the number; None when it is not."""
    most = limit(name)
    return None if value <= most else f"{said.format(value)}, --{name} allows {most:,}"


def check_picture(width: int, height: int) -> None:
    """Raise `TooLarge` unless a picture of this size may be read."""
    wrong = problem("max_pixels", width * height, "{:,} pixels")
    if wrong is not None:
        raise TooLarge(f"a picture of {width}x{height} has {wrong}")


def check_frames(count: int) -> None:
    """Raise `TooLarge` when a video has more frames than may be read."""
    wrong = problem("max_frames", count, "{:,} frames or more")
    if wrong is not None:
        raise TooLarge(f"has {wrong}")


def check_seconds(seconds: float) -> None:
    """Raise `TooLarge` when a video or a sound lasts longer than may be read."""
    wrong = problem("max_seconds", seconds, "{:,.1f} seconds")
    if wrong is not None:
        raise TooLarge(f"says it lasts {wrong}")
