"""Videos in TensorBoard play."""

import io

import numpy as np
import pytest
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tats.tensorboard import add_video, gif_bytes


def test_videos_are_written_for_tensorboard_and_play(tmp_path):
    frames = np.zeros((16, 8, 8, 3), np.uint8)
    frames[np.arange(16), :, np.arange(16) % 8] = 255  # a bar that moves
    loggers = [TensorBoardLogger(tmp_path, name="", version="run"), CSVLogger(tmp_path)]
    add_video(loggers, "val/reconstruction", frames, step=7, fps=10)
    loggers[0].finalize("success")
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    (entry,) = events.Images("val/reconstruction")
    picture = Image.open(io.BytesIO(entry.encoded_image_string))
    assert (entry.step, picture.n_frames, picture.size, picture.info["duration"]) == (7, 16, (8, 8), 100)


def test_frames_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        gif_bytes(np.zeros((2, 2, 2, 3)), 6)
