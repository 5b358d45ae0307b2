"""The captions of a data set without its videos: what a vocabulary is trained on."""

from pathlib import Path

from tats.data.captions import caption_file, read_captions
from tats.data.code_index import read_index
from tats.data.config import DataConfig
from tats.data.hdf5 import read_descriptions
from tats.flags import UserError, existing_path


def captions_of(config: DataConfig, split: str) -> list[str]:
    """All captions of a split in the order of their files: of a folder of videos, an HDF5 file, or code shards.

    Raises:
        UserError: there are none, or they can't be read.
    """
    if config.data_path is None and config.text_path is None:
        raise UserError("--data_path is needed, a data set with captions; or --text_path, a file of captions")
    if config.text_path is not None:
        path = existing_path(config.text_path, "--text_path")
        found = [text for texts in read_captions(path).values() for text in texts]
    else:
        root = existing_path(str(config.data_path), "--data_path")
        path, found = _of_data(config, root, split)
    if not found:
        raise UserError(f"{path} holds no captions")
    return found


def _of_data(config: DataConfig, root: Path, split: str) -> tuple[Path, list[str]]:
    """Where the captions of a data set lie, and the captions."""
    if root.is_file():
        path = root.parent / f"{split}_text_description.txt"
        return path, [text for texts in read_descriptions(path) for text in texts]
    if config.vtokens:
        index = read_index(root / split)
        return root / split, [text for texts in index.captions for text in texts]
    path = caption_file(config, root / split)
    return path, [text for texts in read_captions(path).values() for text in texts]
