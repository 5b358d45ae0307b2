"""The flags of `tats prepare`. Imports nothing but `tats.flags`."""

from dataclasses import dataclass

from tats.flags import REQUIRED, UserError, arg

FORMS = ["hdf5", "folders", "zip", "zips", "codes", "litdata"]
OF_CODES = ("vqgan_ckpt", "window_stride", "whole", "crops", "flips")  # flags that codes alone take


@dataclass(frozen=True)
class PrepareConfig:
    """Turns a folder of videos into what training reads faster, or reads at all; without --form and --stft, says what
    the folder holds."""

    data_path: str = arg(
        REQUIRED, "folder that holds the videos, in any folders below train/ and test/, or below itself"
    )
    out: str | None = arg(None, "folder that receives what is made (none: --data_path itself, where that makes sense)")
    stft: bool = arg(False, "make the spectrograms of the videos' sound, a picture per frame, for --stft_data")
    form: str | None = arg(
        None,
        "what to make: one HDF5 file; pictures in a folder per video, in a zip file per split (StyleGAN-V), or in zip "
        "files, one per partition (LongVideoGAN); codes of --vqgan_ckpt, as shards or for litdata",
        FORMS,
    )
    resolution: int | None = arg(None, "height and width of the pictures, of each the middle square; none: as they are")
    picture: str = arg("jpg", "how pictures are stored, in folders and zip files", ["jpg", "png"])
    quality: int = arg(95, "of JPEG pictures, 1 to 100; from 95 on every pixel keeps its own colour")
    partition: int | None = arg(None, "make this one of --num_partitions only, counted from 0; none: all of them")
    num_partitions: int = arg(1, "partitions of the work, which several machines can share; zip files, of --form zips")
    test_share: float = arg(0.1, "of a folder without train/ and test/: share of the videos that tests")
    split_seed: int = arg(0, "which videos these are")
    check_videos: str = arg(
        "ends", "what is decoded of a video file when it is indexed: its ends, or all of it", ["ends", "all"]
    )
    vqgan_ckpt: str | None = arg(None, "codes: the VQGAN, a checkpoint, a model folder, or the name of a released one")
    sequence_length: int = arg(16, "codes: frames of a clip, before --sample_every_n_frames")
    sample_every_n_frames: int = arg(1, "codes: keep every n-th frame of the clip")
    window_stride: int | None = arg(None, "codes: frames between the windows of a training video; none: side by side")
    whole: bool = arg(False, "codes: encode whole videos, each as one long clip")
    crops: int = arg(1, "codes: crops of each training video; the first is the middle square, others lie at random")
    flips: bool = arg(False, "codes: every crop once more, mirrored from left to right")
    batch_size: int = arg(32, "codes: clips that are encoded at once")
    device: str = arg("auto", "codes: cpu, cuda, cuda:1 ...; auto: a GPU when there is one")
    num_workers: int | None = arg(None, "processes that share the work (none: one for each processor core)")

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise UserError(f"--num_workers {self.num_workers}: at least one process has to work")
        for name in ("resolution", "num_partitions", "sequence_length", "sample_every_n_frames", "window_stride", "crops", "batch_size"):  # fmt: skip  # noqa: E501
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality lies between 1 and 100, got {self.quality}")
        if not 0 <= self.test_share < 1:
            raise UserError(f"--test_share is a share of the videos, from 0 to below 1, got {self.test_share}")
        if self.partition is not None and not 0 <= self.partition < self.num_partitions:
            raise UserError(
                f"--partition {self.partition} of --num_partitions {self.num_partitions}: partitions count from 0 to "
                f"{self.num_partitions - 1}"
            )
        self._check_form()

    def _check_form(self) -> None:
        if self.form is None:
            return
        if self.stft:
            raise UserError("--stft and --form are two calls: give one of them")
        if self.out is None:
            raise UserError(f"--form {self.form} needs --out, a new folder")
        if self.makes_codes and self.vqgan_ckpt is None:
            raise UserError(f"--form {self.form} needs --vqgan_ckpt, the VQGAN that makes the codes")
        if self.makes_codes and self.num_partitions > 1:
            raise UserError(f"--form {self.form} is not made in partitions: leave --num_partitions out")
        if self.makes_codes and self.resolution is not None:
            raise UserError(f"--form {self.form} takes pictures in the size of the VQGAN: leave --resolution out")
        given = [name for name in OF_CODES if getattr(self, name) != getattr(PrepareConfig, name)]
        if not self.makes_codes and given:
            raise UserError(f"--{given[0]} is for codes: take --form codes, or leave it out")

    @property
    def makes_codes(self) -> bool:
        """Whether videos become codes."""
        return self.form in ("codes", "litdata")
