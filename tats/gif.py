"""GIF files written picture by picture: each has its own colours, and none is kept."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

LOOP = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"  # an extension of GIF89a: play again and again
CLOCK = 100  # GIF counts time in hundredths of a second


class GifFile:
    """Appends frames to a GIF; frame k is shown from k / fps on, rounded to hundredths of a second."""

    def __init__(self, path: Path, fps: float):
        self.path, self.fps, self.count = path, fps, 0
        self._file: BinaryIO | None = None

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame uint8 [H, W, 3]; what has more than 256 colours gets the 256 that suit it best."""
        from PIL import GifImagePlugin, Image

        picture = Image.fromarray(frame).convert("P", palette=Image.Palette.ADAPTIVE)
        if self._file is None:
            size = b"".join(side.to_bytes(2, "little") for side in picture.size)
            self._file = self.path.open("wb")
            self._file.write(b"GIF89a" + size + b"\x70\x00\x00" + LOOP)  # no colours for all pictures
        ends = round((self.count + 1) * CLOCK / self.fps) - round(self.count * CLOCK / self.fps)
        for part in GifImagePlugin.getdata(picture, include_color_table=True, duration=ends * 10):
            self._file.write(part)
        self.count += 1

    def finish(self) -> None:
        """Write the end of the file."""
        if self._file is not None:
            self._file.write(b";")
            self._file.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        if self._file is not None:
            self._file.close()
