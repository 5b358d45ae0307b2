"""What the commands that prove something write down for the one that runs them all: no line of theirs is read back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Record:
    """What was tried, how often, and what was wrong.

    tried: what -> how often, as in {"kills": 20}. wrong: a line for everything that was not as promised.
    """

    tried: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def add(self, tried: Mapping[str, int], wrong: Sequence[str]) -> None:
        """Count something in."""
        for what, count in tried.items():
            self.tried[what] = self.tried.get(what, 0) + count
        self.wrong += wrong

    def write(self, path: Path | None) -> None:
        """Write it down as JSON, where a path was asked for."""
        if path is not None:
            path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Record":
        """What a command has written; one that has written nothing has not come to its end, which is wrong, too."""
        if not path.exists():
            return cls(wrong=["it did not come to its end"])
        return cls(**json.loads(path.read_text(encoding="utf-8")))
