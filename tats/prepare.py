"""`tats prepare`: turn a folder of videos into what training reads.

tats prepare --data_path videos                                              # what does the folder hold?
tats prepare --data_path videos --form hdf5 --resolution 128 --out prepared
tats prepare --data_path videos --form zips --resolution 128 --out prepared --partition 3 --num_partitions 10
tats prepare --data_path videos --form codes --vqgan_ckpt V.ckpt --out codes
tats prepare --stft --data_path data/shapes        # spectrograms of the sound, for --stft_data
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tats import flags
from tats.prepare_config import PrepareConfig


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, and make the form that is asked for."""
    config = flags.parse(PrepareConfig, argv, prog="tats prepare")
    if config.stft:
        from tats.data.prepare_stft import prepare_stft

        prepare_stft(config.data_path, config.out, config.num_workers)
    elif config.form is None:
        look(config)
    elif config.makes_codes:
        make_codes(config)
    else:
        make_frames(config)


def look(config: PrepareConfig) -> None:
    """Print what the folder holds; into --out, if given, as report.txt and report.json."""
    from tats.data.inventory import as_text, take_stock
    from tats.data.prepare import report
    from tats.data.prepare_plan import find

    found = find(
        config.data_path, config.num_workers, config.test_share, config.split_seed, config.check_videos == "all"
    )
    stock = take_stock(found, config.num_workers)
    print(as_text(stock) if config.out is None else report(flags.new_folder(config.out, "--out"), found, stock))


def make_frames(config: PrepareConfig) -> None:
    """Make pictures or HDF5, and print where they are."""
    from tats.data.prepare import prepare

    made = prepare(
        config.data_path,
        str(config.out),
        form=str(config.form),
        resolution=config.resolution,
        picture=config.picture,
        quality=config.quality,
        partition=config.partition,
        num_partitions=config.num_partitions,
        workers=config.num_workers,
        test_share=config.test_share,
        split_seed=config.split_seed,
        check_all=config.check_videos == "all",
    )
    for path in made:
        print(path)


def make_codes(config: PrepareConfig) -> None:
    """Encode the videos, as `tats tokenize` does, and print where the codes are."""
    from tats.data.config import DataConfig
    from tats.data.litdata_codes import is_litdata, write_litdata
    from tats.tokenize import TokenizeConfig, tokenize_all

    data = DataConfig(
        data_path=config.data_path,
        sequence_length=config.sequence_length,
        sample_every_n_frames=config.sample_every_n_frames,
        batch_size=config.batch_size,
        check_videos=config.check_videos,
        num_workers=DataConfig.num_workers if config.num_workers is None else config.num_workers,
    )
    out = Path(str(config.out)).expanduser()
    shards = out if config.form == "codes" else out / ".shards"
    if config.form == "litdata" and all(is_litdata(str(out), split) for split in ("train", "test")):
        print(out)  # all of it is there already, and the shards that it was made of are gone
        return
    codes = TokenizeConfig(
        vqgan_ckpt=str(config.vqgan_ckpt),
        out=str(shards),
        window_stride=config.window_stride,
        whole=config.whole,
        crops=config.crops,
        flips=config.flips,
        device=config.device,
        data=data,
    )
    made = tokenize_all(codes)
    if config.form == "litdata":
        made = write_litdata(shards, out)
        shutil.rmtree(shards)
    print(made)


if __name__ == "__main__":
    flags.run(main)
