"""The flags of `tats prepare`. Imports nothing but `tats.flags`."""

from dataclasses import dataclass

from tats.flags import REQUIRED, UserError, arg


@dataclass(frozen=True)
class PrepareConfig:
    """Turns a folder of videos into what training reads faster, or reads at all."""

    data_path: str = arg(REQUIRED, "folder with train/ and test/, in which the videos lie in any folders")
    out: str | None = arg(None, "folder that receives what is made (none: --data_path itself, where that makes sense)")
    stft: bool = arg(False, "make the spectrograms of the videos' sound, a picture per frame, for --stft_data")
    num_workers: int | None = arg(None, "processes that share the work (none: one for each processor core)")

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise UserError(f"--num_workers {self.num_workers}: at least one process has to work")
