"""`tats prepare`: turn a folder of videos into what training reads.

tats prepare --stft --data_path data/shapes        # spectrograms of the sound, for --stft_data
"""

from collections.abc import Sequence

from tats import flags
from tats.flags import UserError
from tats.prepare_config import PrepareConfig


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, and make the form that is asked for."""
    config = flags.parse(PrepareConfig, argv, prog="tats prepare")
    if not config.stft:
        raise UserError("tats prepare makes nothing unless it is told what: --stft makes spectrograms of the sound")
    from tats.data.prepare_stft import prepare_stft

    prepare_stft(config.data_path, config.out, config.num_workers)


if __name__ == "__main__":
    flags.run(main)
