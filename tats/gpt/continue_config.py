"""The flags of the sampling scripts that make a given video longer. No torch here."""

from dataclasses import dataclass

from tats.flags import UserError, arg


@dataclass(frozen=True)
class ContinueConfig:
    """A given video to go on from."""

    continue_from: str | None = arg(
        None, "go on from given videos: a file, a folder of them, pictures, HDF5, or codes of `tats tokenize`"
    )
    observed_frames: int | None = arg(
        None, "frames of each that are given (needed); of these every n-th of the file that the VQGAN was trained with"
    )
    observed_start: int | None = arg(
        None, "frame of the file where they begin, from 0; what lies behind them is never read (none: they end it)"
    )
    observed_split: str = arg("test", "which half of a data set with train/ and test/ is continued", ["train", "test"])
    continuations: int = arg(1, "videos that go on from each given one, with a seed each; --n_sample limits them all")

    def __post_init__(self) -> None:
        if self.continue_from is None:
            for name in ("observed_frames", "observed_start"):
                if getattr(self, name) is not None:
                    raise UserError(f"--{name} is about a given video: name it with --continue_from")
            return
        if self.observed_frames is None:
            raise UserError("--continue_from needs --observed_frames N, how many frames of the video are given")
        if self.observed_frames < 1:
            raise UserError(f"--observed_frames counts frames, 1 or more, got {self.observed_frames}")
        if self.observed_start is not None and self.observed_start < 0:
            raise UserError(f"--observed_start counts frames of the file from 0, got {self.observed_start}")
        if self.continuations < 1:
            raise UserError(f"--continuations counts videos per given one, 1 or more, got {self.continuations}")
