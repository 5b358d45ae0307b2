"""The flag of clips that are shown while a transformer trains. No torch here."""

from dataclasses import dataclass

from tats.flags import UserError, arg


@dataclass(frozen=True)
class ShownConfig:
    """Clips that the model makes, shown while it trains."""

    log_videos_every: int = arg(5000, "steps between two films of clips that the model makes, in the log (0: none)")

    def __post_init__(self) -> None:
        if self.log_videos_every < 0:
            raise UserError(f"--log_videos_every counts steps, 0 or more, got {self.log_videos_every}")
