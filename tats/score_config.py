"""The flags of scores that are computed while a model trains. No torch here."""

from dataclasses import dataclass

from tats.flags import UserError, arg


@dataclass(frozen=True)
class ScoreConfig:
    """Scores of what the model makes, while it trains."""

    score_every: int | None = arg(None, "steps between two scores; the best checkpoint by them is kept (none: never)")
    score_clips: int = arg(256, "clips that are made and compared each time")
    score_protocol: str = arg("tats", "the published evaluation that is followed (docs/protocols.md)")
    score_data_path: str | None = arg(None, "real videos, where --data_path holds codes (none: --data_path)")
    features_ckpt: str | None = arg(None, "a network of `tats evaluate --train_features` that judges")
    i3d_ckpt: str | None = arg(None, "weights of I3D, which judges: the score is FVD")

    def __post_init__(self) -> None:
        if self.score_every is None:
            return
        if self.score_every < 1:
            raise UserError(f"--score_every counts steps, 1 or more, got {self.score_every}")
        if self.score_clips < 2:
            raise UserError(f"--score_clips must be at least 2, got {self.score_clips}")
        if (self.features_ckpt is None) == (self.i3d_ckpt is None):
            raise UserError("--score_every needs one network that judges: --i3d_ckpt, or --features_ckpt")
