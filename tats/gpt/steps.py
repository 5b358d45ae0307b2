"""How many steps of the model made how many codes. No torch here."""

from dataclasses import dataclass


@dataclass
class Steps:
    """Counts steps of the model that draw codes (showing what a window holds is none of them) and the codes they made.

    steps: each is for all videos of a batch. codes, windows: of all videos. own: the same steps, counted once for every
    video in the batch.
    """

    steps: int = 0
    codes: int = 0
    windows: int = 0
    own: int = 0

    def add(self, steps: int, codes: int, windows: int) -> None:
        """Count `windows` windows of one batch, `codes` in each of them, made by so many steps."""
        self.steps += steps
        self.codes += codes * windows
        self.windows += windows
        self.own += steps * windows

    @property
    def codes_per_step(self) -> float:
        """Codes that a video got per step: 1 for one by one, but for the first code of a window, which needs none."""
        return self.codes / max(self.own, 1)

    @property
    def summary(self) -> dict[str, float]:
        """Plain values for a manifest."""
        return {"steps": self.steps, "codes": self.codes, "codes_per_step": round(self.codes_per_step, 3)}
