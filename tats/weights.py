"""Where weights lie on this machine, and where they come from: `tats weights list`, `tats weights get NAME`.

A name is looked for as a path, in the folder `$TATS_WEIGHTS`, and in the cache (`~/.cache/tats`). Nothing is fetched
unless `tats weights get` asks for it.
"""

from pathlib import Path


def find(name: str | Path) -> Path:
    """The file or folder that `name` means."""
    return Path(name)
