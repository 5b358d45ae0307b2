"""Opening films, sounds and pictures that somebody else made.

A file is taken for what it holds, not for its name: FFmpeg would follow a playlist called `a.mp4` to other files and to
the network, PIL would hand a PostScript called `1.png` to another program. Only forms that hold their pictures
themselves are opened, and only up to the limits on what is read (`tats.limits`).
"""

import warnings
from pathlib import Path
from typing import Any

from tats import limits

CONTAINERS = (
    "avi,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,m4v,flv,asf,ogg,nut,ivf,mxf,h264,hevc,av1,obu,"
    "mjpeg,gif,apng,wav,w64,flac,mp3,aac,ac3,aiff,au,caf,amr,dv,rm"
)
UNDECODABLE = (OSError, ValueError, ArithmeticError, LookupError, MemoryError, limits.TooLarge)
"""What damaged films make PyAV raise beside `av.FFmpegError`."""
PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF")


def open_film(path: str | Path) -> Any:
    """The container of a film or a sound, whose decoders refuse pictures beyond `--max_pixels`.

    Raises:
        limits.TooLarge: it says that it lasts too long, or that its pictures are too large.
        av.FFmpegError, OSError: it cannot be opened, or is of no form in `CONTAINERS`.
    """
    import av

    allowed = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    container = av.open(str(Path(path).absolute()), options=allowed)
    try:
        if container.duration is not None:
            limits.check_seconds(container.duration / av.time_base)
        for stream in container.streams.video:
            if stream.codec_context is None:
                raise OSError(None, "its pictures are in a form that no decoder knows")
            limits.check_picture(stream.codec_context.width, stream.codec_context.height)
            stream.codec_context.options = {"max_pixels": str(limits.limit("max_pixels"))}
    except (limits.TooLarge, OSError):
        container.close()
        raise
    return container


def open_picture(source: Any) -> Any:
    """The picture or animation in a file (a path, or an open file), of which nothing but the head is read yet.

    Raises:
        limits.TooLarge: it has more pixels than may be read.
        OSError (and what else PIL raises): it is of no form in `PICTURES`, or damaged. Later frames of an animation
            that are too large raise PIL's DecompressionBombError.
    """
    from PIL import Image, UnidentifiedImageError

    # An animation's frames may reach beyond its screen, the first one too, and PIL makes room for them before they can
    # be looked at. It raises DecompressionBombError above twice this, and a warning below that says nothing here.
    Image.MAX_IMAGE_PIXELS = bound = max(limits.limit("max_pixels") // 2, 1)
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    try:
        picture = Image.open(source, formats=PICTURES)
    except Image.DecompressionBombError:
        try:  # PIL tells no width and height; other forms make no room when they are opened
            Image.MAX_IMAGE_PIXELS = None
            with Image.open(source, formats=[each for each in PICTURES if each != "GIF"]) as picture:
                limits.check_picture(*picture.size)
        except UnidentifiedImageError:
            most = f"--max_pixels allows {limits.limit('max_pixels'):,}"
            raise limits.TooLarge(f"a frame of it has more pixels than {most}") from None
        finally:
            Image.MAX_IMAGE_PIXELS = bound
        raise
    try:
        limits.check_picture(*picture.size)
    except limits.TooLarge:
        picture.close()
        raise
    return picture
