"""Settings of the embedded dataset of moving shapes."""

from dataclasses import dataclass

from tats.flags import UserError, arg


@dataclass(frozen=True)
class ShapesConfig:
    """What `tats shapes` writes: videos of one shape that moves and bounces, with label, caption, sound and truth."""

    out: str = arg("data/shapes", "folder that receives train/ and test/")
    n_train: int = arg(1200, "videos for training, spread evenly over the 12 classes")
    n_test: int = arg(240, "videos for testing, spread evenly over the 12 classes")
    frames: int = arg(32, "frames of each video")
    resolution: int = arg(64, "width and height in pixels, even")
    fps: int = arg(16, "frames per second")
    seed: int = arg(0, "equal seeds give equal pixels")
    sound: bool = arg(True, "a click at every reflection, as AAC; --no_sound leaves the track out")
    num_workers: int | None = arg(None, "processes that write (none: one for each processor core)")

    def __post_init__(self) -> None:
        for name in ("n_train", "n_test", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} {getattr(self, name)}: must be 0 or more.")
        if self.n_train + self.n_test == 0:
            raise UserError("--n_train 0 and --n_test 0 leave nothing to write: ask for at least one video.")
        if self.frames < 1 or self.fps < 1:
            raise UserError(f"--frames {self.frames} and --fps {self.fps}: both must be at least 1.")
        if self.resolution < 16 or self.resolution % 2:
            raise UserError(f"--resolution {self.resolution}: must be an even number of at least 16 pixels.")
        if self.num_workers is not None and self.num_workers < 1:
            raise UserError(f"--num_workers {self.num_workers}: at least one process has to write.")
