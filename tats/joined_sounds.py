"""The sounds that long videos follow, one after the other: --audio, and the entries of --schedule that name one.

Each begins at its frame of the video and is heard until the next one begins, or to the end. What comes out is one
sound, from which windows take that of their own frames, and with which the films are written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tats import checkpoint
from tats.changes import Schedule
from tats.codes_file import Video
from tats.data.spectrogram import RATE
from tats.films import Heard
from tats.flags import UserError
from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT
from tats.gpt.sample_config import HierarchicalConfig, LongConfig
from tats.listening import Division, digest_of, sound_codes, warn_of
from tats.media import AAC_RATES, Sound
from tats.sound import SoundError, native_rate, sound_pieces
from tats.vqgan.model import VQGAN


@dataclass(frozen=True)
class Piece:
    """A sound file, heard from its first sample on from frame `frame` of the video, `begin` seconds, until `end`.

    where: how messages name it.
    """

    path: Path
    frame: int
    begin: float
    end: float
    where: str

    def check(self, spare: float) -> None:
        """Refuse a file that can't be heard to the end; `spare` seconds may be missing, which are silent then."""
        needed = self.end - self.begin
        try:
            found = sum(map(len, sound_pieces(self.path, RATE, 0.0, needed))) / RATE
        except SoundError as error:
            raise UserError(f"{self.where}: {error}") from None
        if not found:
            raise UserError(f"{self.where}: the file holds no sound at all")
        if needed - found >= spare:
            raise UserError(
                f"{self.where}: it lasts {found:.2f} seconds, and is to be heard for {needed:.2f}, until the next one "
                f"or the end: give a longer sound, another one where it ends, or a shorter video (--frames)"
            )


@dataclass(frozen=True)
class JoinedSounds:
    """The sound of all videos of a run, at `fps` frames per second: its pieces, and the codes of all of them together
    by `vqgan`. Without pieces there is none."""

    pieces: tuple[Piece, ...] = ()
    fps: float = 0.0
    codes: Tensor | None = None
    vqgan: VQGAN | None = None

    @property
    def given(self) -> dict[str, Tensor]:
        """As the functions of `tats.gpt.api` take it."""
        return {} if self.codes is None else {"sound": self.codes}

    @property
    def models(self) -> dict[str, GPT | VQGAN]:
        """The model that the codes depend on."""
        return {} if self.vqgan is None else {"stft_vqgan": self.vqgan}

    @property
    def settings(self) -> dict[str, Any]:
        """What the codes depend on."""
        if self.codes is None:
            return {}
        names = [piece.path.name for piece in self.pieces]
        return {"sound": names, "sound_codes": digest_of(self.codes), "fps": self.fps}

    @property
    def entries(self) -> dict[str, Any]:
        """What stands beside each video in the manifest: name -> function of the video."""
        told = [
            {"from_frame": piece.frame, "file": str(piece.path), "seconds": round(piece.end - piece.begin, 6)}
            for piece in self.pieces
        ]
        return {"sound": lambda video: told} if told else {}

    @property
    def heard(self) -> Heard | None:
        """The rate and the sound of a film, as `tats.films.Films` takes them."""
        return self._heard if self.pieces else None

    def _heard(self, video: Video) -> tuple[float, Sound | None]:
        rate = max(native_rate(piece.path) for piece in self.pieces)
        rate = rate if rate in AAC_RATES else 48000
        return self.fps, (joined(self.pieces, rate), rate)


def joined(pieces: Sequence[Piece], rate: int) -> Iterator[NDArray[np.float32]]:
    """The samples of all pieces one after the other, float32 [n] at `rate`; what one lacks at its end is silence."""
    for piece in pieces:
        left = round(piece.end * rate) - round(piece.begin * rate)
        for samples in sound_pieces(piece.path, rate, 0.0, left / rate):
            yield samples
            left -= len(samples)
        if left > 0:
            yield np.zeros(left, np.float32)


def joined_sounds(
    args: LongConfig | HierarchicalConfig,
    schedule: Schedule,
    transformers: Mapping[str, GPTConfig],
    vqgan: VQGAN,
    total: int,
) -> JoinedSounds:
    """The sound that the flags ask for, for videos of `total` latent frames of `vqgan`.

    transformers: by the paths of their checkpoints; with one alone, every window is encoded by itself, as in training.
    Of a hierarchy the coarse one comes first; windows of both are cut from the codes of the whole sound.

    Raises:
        UserError: a file can't be read or is too short, something is missing, or the models do not belong together.
    """
    takers = {path: config for path, config in transformers.items() if "stft" in config.keys}
    if not takers:
        for flag, value in (("audio", args.audio), ("stft_vqgan_ckpt", args.stft_vqgan_ckpt)):
            if value is not None:
                raise UserError(f"--{flag} is for transformers conditioned on sound, which this one is not")
        return JoinedSounds()
    sounds = [] if args.audio is None else [(0, Path(args.audio).expanduser(), f"--audio {args.audio}")]
    sounds += schedule.sounds
    if not sounds and all(config.parts_optional for config in takers.values()):
        return JoinedSounds()
    if not sounds or sounds[0][0] > 0:
        raise UserError(
            "this transformer is conditioned on sound, and the first frames have none: --audio is needed, a sound or "
            "video file, or an entry of --schedule with a sound from frame 0"
        )
    if args.stft_vqgan_ckpt is None:
        raise UserError("this transformer is conditioned on sound: --stft_vqgan_ckpt is needed, the VQGAN of sounds")
    factor, fps, device = vqgan.config.downsample[0], args.output.fps, next(vqgan.parameters()).device
    ends = [*(frame for frame, _, _ in sounds), total * factor]
    pieces = tuple(
        Piece(path, frame, frame / fps, end / fps, where)
        for (frame, path, where), (_, end) in zip(sounds, pairwise(ends))
    )
    for piece in pieces:
        piece.check(factor / fps)
    models = [checkpoint.load_sound_vqgan(path, args.stft_vqgan_ckpt, device) for path in takers]
    divisions = [Division.of(config, vqgan, model) for config, model in zip(takers.values(), models)]
    if len({division.every for division in divisions}) > 1:
        raise UserError("the two transformers were trained on videos of different rates of frames: their sounds differ")
    warn_of(models[0])
    longest = max(divisions, key=lambda division: division.pictures)
    samples, alone = joined(pieces, RATE), len(transformers) == 1
    codes = sound_codes(samples, longest, models[0], total, fps, by_window=alone)
    return JoinedSounds(pieces, fps, codes, models[0])
