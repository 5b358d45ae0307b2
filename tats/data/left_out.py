"""What a data set leaves out: counted, named in one line, and never more than a few."""

from collections.abc import Sequence

from tats.flags import UserError
from tats.launched import say

ALLOWED = 100  # at most one unreadable file in this many
NAMED = 10  # names in one line


def check_unreadable(where: str, problems: Sequence[str], total: int, noun: str = "files") -> None:
    """Name the unreadable files of `where` in one line; refuse when they are more than one in a hundred.

    `problems` has one entry "name: reason" each, `total` counts all; `noun` is what they are.

    Raises:
        UserError: more than 1 in 100 cannot be read, with the list.
    """
    if not problems:
        return
    if len(problems) * ALLOWED > total:
        listed = "; ".join(problems[:NAMED]) + _more(problems)
        raise UserError(
            f"{where}: {len(problems)} of {total} {noun} cannot be read, more than 1 in {ALLOWED}: {listed}. "
            f"Repair or remove them."
        )
    say(f"{where}: left out {len(problems)} of {total} {noun} that cannot be read: {'; '.join(problems[:NAMED])}{_more(problems)}")  # fmt: skip  # noqa: E501


def check_short(where: str, short: Sequence[str], total: int, span: int) -> None:
    """Name the videos of `where` that are shorter than the window of `span` frames, in one line.

    Raises:
        UserError: there is no other video.
    """
    if total and len(short) == total:
        raise UserError(
            f"{where}: none of {total} videos has the {span} frames that a clip takes. Give a smaller "
            f"--sequence_length (or --sample_every_n_frames), or longer videos."
        )
    if short:
        say(f"{where}: left out {len(short)} of {total} videos shorter than {span} frames: {', '.join(short[:NAMED])}{_more(short)}")  # fmt: skip  # noqa: E501


def named(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    return ", ".join(names[:NAMED]) + _more(names)


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
