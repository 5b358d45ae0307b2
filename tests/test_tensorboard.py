"""Videos in TensorBoard play."""

import io

import numpy as np
import pytest
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tats.tensorboard import add_image, add_video, gif_bytes


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


class Receiver:
    """A logger that takes videos and pictures as Lightning's WandbLogger does."""

    def __init__(self):
        self.got = []

    def log_video(self, key, videos, step=None, **more):
        self.got.append((key, [video.read() for video in videos], step, more))

    def log_image(self, key, images, step=None):
        self.got.append((key, [image.shape for image in images], step))


def test_a_logger_of_its_own_kind_gets_the_same_video_and_picture():
    frames, logger = np.zeros((3, 8, 8, 3), np.uint8), Receiver()
    add_video([logger, None], "samples/videos", frames, step=7)
    add_image([logger, None], "samples/images", frames[0], step=8)
    assert logger.got == [
        ("samples/videos", [gif_bytes(frames, 6)], 7, {"format": ["gif"]}),
        ("samples/images", [(8, 8, 3)], 8),
    ]
