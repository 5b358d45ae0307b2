"""What sample_audio_cond.py listens to: the clips of a data set, or one sound of any length.

Either gives the codes that transformers take as their condition, and the sound that the films are written with. Of a
sound that is longer than a window, the sliding window takes the sound of the frames that it shows, encoded by itself,
as the clips were that the transformer was trained on.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tats.codes_file import Video
from tats.conditions import Conditions
from tats.data.config import DataConfig
from tats.data.loader import Clips
from tats.data.sound import SoundVideos, sound_pictures
from tats.data.spectrogram import RATE, SIZE, spectrogram
from tats.films import folder_of
from tats.flags import UserError
from tats.gpt.config import GPTConfig
from tats.gpt.course import rate_of
from tats.gpt.sample_config import AudioConfig
from tats.media import AAC_RATES, Sound, VideoWriter
from tats.output import video_name
from tats.reader import ReadError, frame_times, scan
from tats.sampling import say
from tats.sound import NoSound, native_rate, sound_of, sound_pieces
from tats.video import to_frames
from tats.vqgan.model import VQGAN
from tats.vqgan.stream import encode_stream

FPS = 16.0  # of films of a sound file, when nothing else is asked for
AT_ONCE = 64  # windows of sound that are encoded together


@dataclass(frozen=True)
class Division:
    """How a transformer by sound divides time. latents: latent frames of a window; frames: of video, one latent frame;
    pictures: of sound, one window; every: pictures of sound per frame of video."""

    latents: int
    frames: int
    pictures: int
    every: int

    @classmethod
    def of(cls, gpt: GPTConfig, vqgan: VQGAN, sounds: VQGAN) -> "Division":
        """Raises:
        UserError: the transformer takes no sound, or these VQGANs are not those it was trained with.
        """
        part = gpt.part("stft")
        if part is None:
            raise UserError(
                f"--gpt_ckpt: this transformer is not conditioned on sound ({', '.join(gpt.keys) or 'none'})"
            )
        t = sounds.config.downsample[0]
        if sounds.config.image_channels != 1:
            raise UserError("--stft_vqgan_ckpt does not go with --gpt_ckpt: it is a VQGAN of pictures, not of sounds")
        with torch.inference_mode():
            one = torch.zeros(1, 1, t, *SIZE, device=next(sounds.parameters()).device)
            per_frame = sounds.encode(one).numel()  # codes of one latent frame of sound
        pictures = -(-part.n_cond // per_frame) * t  # released files tell this up to one token
        factor = vqgan.config.downsample[0]
        shown = ((gpt.latent_shape[0] - 1) * gpt.stride + 1) * factor  # of a coarse window, which may show more
        every = Fraction(pictures, shown) if gpt.stride == 1 else rate_of(gpt, pictures // t) * Fraction(t, factor)
        if sounds.n_codes != part.values or every.denominator != 1:
            raise UserError(
                f"--stft_vqgan_ckpt does not go with --gpt_ckpt: it makes {per_frame} of {sounds.n_codes} codes of the "
                f"sound of {t} frames, the transformer takes {part.n_cond} of {part.values} for {shown} frames of video"
            )
        return cls(gpt.latent_shape[0], factor, pictures, int(every))


class Listened(Protocol):
    """What a run listens to. total: latent frames of every video. count: how many different sounds there are; videos
    take them by turns. settings: plain values that the codes depend on."""

    total: int
    count: int
    fps: float
    settings: dict[str, Any]

    def codes(self, videos: Sequence[Video]) -> Tensor:
        """The condition of some videos: int64 [B or 1, t, h, w], or [B or 1, n, t, h, w] window by window."""
        ...

    def heard(self, video: Video) -> tuple[float, Sound | None]:
        """Frames per second of a video, and its sound if it has one."""
        ...

    def entry(self, video: Video) -> dict[str, Any]:
        """What the manifest says of the sound of a video."""
        ...


class SoundFile:
    """A sound of any length, of a sound or a video file; all videos of the run are of this one."""

    count = 1

    def __init__(self, args: AudioConfig, division: Division, sounds: VQGAN):
        """Raises:
        UserError: the file has no sound or can't be read, or --frames does not come out even.
        """
        self.path = Path(str(args.audio)).expanduser()
        own = own_rate(self.path)
        self.fps = args.output.fps or (FPS if own is None else own / division.every)
        seconds = sum(map(len, sound_pieces(self.path, RATE))) / RATE
        if not seconds:
            raise UserError(f"--audio {self.path} holds no sound at all")
        most = None if args.frames is None else args.frames // division.frames
        if args.frames is not None and (most == 0 or args.frames % division.frames):
            below = max(args.frames // division.frames, 1) * division.frames
            raise UserError(f"--frames {args.frames}: a latent frame is {division.frames} frames. Nearest: {below}.")
        self.total = max(-(-round(seconds * self.fps) // division.frames), 1)
        self.total = self.total if most is None else min(self.total, most)
        self.seconds = self.total * division.frames / self.fps
        self._codes = sound_codes(sound_pieces(self.path, RATE), division, sounds, self.total, self.fps)
        self.settings = {"sound": self.path.name, "sound_codes": digest_of(self._codes), "fps": self.fps}

    def codes(self, videos: Sequence[Video]) -> Tensor:
        """See `Listened`."""
        return self._codes

    def heard(self, video: Video) -> tuple[float, Sound | None]:
        """See `Listened`."""
        return self.fps, cut(self.path, 0.0, self.seconds)

    def entry(self, video: Video) -> dict[str, Any]:
        """See `Listened`."""
        return {"file": str(self.path), "seconds": round(self.seconds, 6)}


class SoundClips:
    """The clips of the test split of a data set, as `--stft_data` reads them."""

    def __init__(self, args: AudioConfig, division: Division, sounds: VQGAN, resolution: int, channels: int):
        """Raises:
        UserError: the data is missing, broken or too short.
        """
        config = DataConfig(
            data_path=args.data_path,
            stft_data=True,
            sequence_length=division.pictures,
            sample_every_n_frames=division.every,
            resolution=resolution,
            image_channels=channels,
        )
        self.source, self.sounds, self.every = SoundVideos(config, "test"), sounds, division.every
        self.clips = Clips(self.source, 0, train=False)
        self.total, self.count = division.latents, len(self.clips)
        self._asked = args.output.fps
        self.fps = self._asked or self._rate(Video(0, 0))
        listed = "\n".join(self.source.names)
        digest = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
        self.settings = {"sound": "data", "sound_files": digest[:16], "fps": self._asked}

    def _window(self, video: Video) -> tuple[int, int]:
        """Which video of the source a video of the run listens to, and from which frame on."""
        return self.clips.window((0, video.index % self.count))

    def _rate(self, video: Video) -> float:
        """Frames per second of the clip, as its file says."""
        number, _ = self._window(video)
        return film_times(self.source.path(number))[1] / self.every

    @torch.inference_mode()
    def codes(self, videos: Sequence[Video]) -> Tensor:
        """See `Listened`."""
        clips = torch.stack([self.source.hear(*self._window(video)) for video in videos])  # [B, 1, n, 64, 16]
        return self.sounds.encode(clips.to(next(self.sounds.parameters()).device))

    def heard(self, video: Video) -> tuple[float, Sound | None]:
        """See `Listened`."""
        number, start = self._window(video)
        path = self.source.path(number)
        times, _ = film_times(path)
        begin, end = float(times[start]), float(times[start + self.source.span])
        return self._asked or self._rate(video), cut(sound_of(path), begin, end - begin)

    def entry(self, video: Video) -> dict[str, Any]:
        """See `Listened`."""
        number, start = self._window(video)
        return {"file": self.source.names[number], "frame": start}

    def labels(self, names: Sequence[str] | None) -> list[int]:
        """The classes of the clips as a transformer with these `names` counts them.

        Raises:
            UserError: it stores no names, or does not know one of these classes.
        """
        if names is None:
            raise UserError("this transformer stores no names of its classes: say with --label which to make")
        own = [self.source.label_names[int(self.source.labels[number])] for number in self.clips.video_of]
        strange = sorted(set(own) - set(names))
        if strange:
            raise UserError(
                f"--data_path: this transformer knows no class {strange[0]!r}; its classes are {', '.join(names)}"
            )
        return [list(names).index(name) for name in own]

    def write_truth(self, videos: Sequence[Video], path_of: Callable[[Video, str, str], Path]) -> None:
        """The clips themselves, with their sound, and copies of the files they were cut from, once per clip.

        path_of(video, kind, suffix): the file of a video, kind `groundtruth` or `source`.
        """
        for video in videos[: self.count]:
            number, start = self._window(video)
            source = self.source.path(number)
            truth, copy = path_of(video, "groundtruth", ".mp4"), path_of(video, "source", source.suffix)
            if not truth.exists():
                clip = self.source.read(number, start, np.random.default_rng(0))
                fps, sound = self.heard(video)
                with VideoWriter(truth, fps, sound=sound) as file:
                    file.write(to_frames(clip["video"]).numpy())
            if not copy.exists():
                part = copy.with_name(f".{copy.name}.part")
                shutil.copyfile(source, part)
                part.replace(copy)


@torch.inference_mode()
def sound_codes(
    samples: Iterable[NDArray[np.float32]],
    division: Division,
    sounds: VQGAN,
    total: int,
    fps: float,
    by_window: bool = True,
) -> Tensor:
    """Codes of the sound of videos of `total` latent frames: int64 [1, t, h, w], or of videos longer than a window
    [1, total, t, h, w], those of the windows that begin at latent frame 0, 1, ..., each encoded by itself.

    samples: float32 [n] at `RATE` in pieces; behind their end is silence. by_window false: the whole sound is encoded
    at once, for windows that are cut from its codes.
    """
    step = division.frames * division.every  # pictures from one window to the next
    times = np.arange(total * step + 1) / (fps * division.every)
    pictures = np.concatenate(list(spectrogram(samples, times)))  # [n, 64, 16]
    silence = np.zeros((division.pictures, *pictures.shape[1:]), pictures.dtype)  # behind the end
    pictures = np.concatenate([pictures, silence])
    device = next(sounds.parameters()).device
    if not by_window:
        clips = (sound_pictures(pictures, at, AT_ONCE)[None].to(device) for at in range(0, len(pictures), AT_ONCE))
        return torch.stack(list(encode_stream(sounds, clips, group_norm_in_pieces=True)), 1)
    starts = [0] if total <= division.latents else list(range(0, total * step, step))
    found = []
    for first in range(0, len(starts), AT_ONCE):
        windows = [sound_pictures(pictures, at, division.pictures) for at in starts[first : first + AT_ONCE]]
        found.append(sounds.encode(torch.stack(windows).to(device)))  # [n, t, h, w]
    codes = torch.cat(found)
    return codes if len(starts) == 1 else codes[None]


def digest_of(codes: Tensor) -> str:
    """What tells codes apart, in few letters."""
    return hashlib.sha256(codes.cpu().numpy().tobytes()).hexdigest()[:16]


def warn_of(sounds: VQGAN) -> None:
    """Say so where a VQGAN may know other spectrograms than those that are made of sound files here."""
    if not sounds.config.of_sounds:
        say("--audio: the VQGAN of sounds was not trained here; it may know spectrograms of another make than ours")


def listen(args: AudioConfig, gpt: GPTConfig, vqgan: VQGAN, sounds: VQGAN) -> Listened:
    """What the flags ask to listen to.

    Raises:
        UserError: it can't be read, or the models do not belong together.
    """
    division = Division.of(gpt, vqgan, sounds)
    if gpt.stride > 1:
        raise UserError("--gpt_ckpt: a coarse transformer (--sample_every_n_latent_frames) is not sampled by itself")
    if args.audio is not None:
        warn_of(sounds)
        file = SoundFile(args, division, sounds)
        say(f"{file.path}: {file.seconds:.2f} seconds, {file.total} latent frames at {file.fps:g} frames per second")
        return file
    side = gpt.latent_shape[1] * vqgan.config.downsample[1]  # released VQGANs of sounding videos name another one
    return SoundClips(args, division, sounds, side, vqgan.config.image_channels)


def with_classes(conditions: Conditions, args: AudioConfig, gpt: GPTConfig, heard: Listened) -> Conditions:
    """The conditions with the classes of the clips, for a transformer by class and sound; --label says otherwise."""
    if conditions.labels is None or args.output.label is not None or not isinstance(heard, SoundClips):
        return conditions
    return replace(conditions, labels=heard.labels(gpt.label_names))


def context_of(args: AudioConfig, gpt: GPTConfig) -> int:
    """Latent frames that a sliding window sees of what was made before."""
    return gpt.latent_shape[0] - 1 if args.temporal_sample_pos is None else args.temporal_sample_pos


def write_truth(args: AudioConfig, heard: Listened, videos: Sequence[Video], name: str) -> None:
    """Beside the films of a run of this name: the clips of the data set that they were made from."""
    if isinstance(heard, SoundClips) and args.output.kinds(args.output.save_arrays):
        folder = folder_of(args.output, name)
        folder.mkdir(parents=True, exist_ok=True)
        heard.write_truth(videos, lambda video, kind, suffix: folder / (video_name(video, kind) + suffix))


def own_rate(path: Path) -> float | None:
    """Frames per second of a video file, None of a file that holds a sound only."""
    try:
        timeline = scan(path)
    except ReadError:
        return None
    return timeline.fps if timeline.n_frames > 1 else None


@cache
def film_times(path: Path) -> tuple[NDArray[np.float64], float]:
    """When the frames of a video file are shown, as `tats.reader.frame_times`, and its frames per second."""
    return frame_times(path), scan(path).fps


def cut(path: Path, begin: float, seconds: float) -> Sound | None:
    """A part of the sound of a file at its own rate, or near it where AAC has no such rate; None of one without sound,
    whose spectrogram came from elsewhere."""
    try:
        rate = native_rate(path)
    except NoSound:
        return None
    rate = rate if rate in AAC_RATES else 48000
    return sound_pieces(path, rate, begin, seconds), rate
