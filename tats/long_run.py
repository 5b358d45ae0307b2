"""Long videos from codes to files: made, kept, decoded and written frame by frame, and gone on with after a stop."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tats import sampling
from tats.codes_file import Journal, Video
from tats.continuation import Continuation
from tats.films import Films, Heard
from tats.flags import UserError
from tats.judging import Judge, score
from tats.launched import launched
from tats.output import Store
from tats.shared_work import begun, ends_run, share
from tats.vqgan.model import VQGAN
from tats.vqgan.stream import decode_stream, refusal

Make = Callable[[list[Video], Tensor | None, int], Iterator[Tensor]]


@dataclass(frozen=True)
class Film:
    """How the codes of long videos come about: what a sampling script hands over.

    total: latent frames of every video, given ones included. make: from some videos, known codes int64 [B, n, h, w] or
    None, and the latent frame where these begin, to latent frames [B, h, w] from there on, the known ones first.
    keep: of (finished, given) latent frames of so many videos, those that must be handed back as known when a stopped
    run goes on.
    given: what the videos go on from, if anything. judge: what scores the videos once all codes are there, if asked.
    heard: the rate and the sound of every video, if they have any.
    """

    total: int
    make: Make
    keep: Callable[[int, int, int], range]
    given: Continuation | None = None
    judge: Judge | None = None
    heard: Heard | None = None


def latent_length(frames: int | None, sample_length: int, vqgan: VQGAN, step: int | None = None) -> int:
    """Latent frames of a video: of `frames` pictures, or without that number as --sample_length says.

    step: of a hierarchy, whose videos have one latent frame more than a multiple of it.

    Raises:
        UserError: the number does not fit; the nearest ones that do are named.
    """
    factor = vqgan.config.downsample[0]
    if frames is None:
        if sample_length < 1:
            raise UserError(f"--sample_length counts latent frames, 1 or more, got {sample_length}")
        if step is None:
            return sample_length
        if sample_length % step:
            below = sample_length // step * step
            near = f"{below} or {below + step}" if below else str(step)
            raise UserError(
                f"--sample_length {sample_length} does not end on a coarse frame: they stand {step} apart, so it must "
                f"be a multiple of {step}. Nearest: {near}."
            )
        return sample_length + 1
    if frames < 1:
        raise UserError(f"--frames counts frames, 1 or more, got {frames}")
    unit, first = (factor, 0) if step is None else (factor * step, factor)
    below = (frames - first) // unit * unit + first
    if below == frames and (below > first or step is None):
        return frames // factor
    least = first + unit
    near = f"{below} or {below + unit}" if below >= least else str(least)
    fills = f"a latent frame is {factor} frames" + (f", coarse ones stand {step} apart" if step else "")
    raise UserError(f"--frames {frames} does not come out even: {fills}. Nearest: {near}.")


def make_films(args: Any, store: Store, vqgan: VQGAN, videos: list[Video], name: str, film: Film) -> None:
    """Make the videos of a run: what was begun first, then the rest, then files whose codes are there already."""
    wanted = args.output
    if vqgan.config.norm_type == "group" and film.total > vqgan.latent_shape[0]:
        if not args.decode_group_norm_in_pieces:
            raise refusal(vqgan)
        sampling.say(f"group normalisation: the video has a seam every {vqgan.latent_shape[0]} latent frames")
    device = next(vqgan.parameters()).device
    frames = film.total * vqgan.config.downsample[0]
    mark, alone = None if film.given is None else film.given.mark, launched().size == 1
    films = Films(wanted, name, videos, frames, mark=mark, heard=film.heard, array=alone)
    sampling.say(f"videos: {films.folder if films.kinds else films.save}")
    try:
        for batch in open_batches(store, videos, wanted.batch_size):
            latent = journaled(store, batch, film, device)
            write(args, films, vqgan, batch.videos, latent, film.total)
        write_lacking(args, store, films, vqgan, share(videos), film.total)
        if not ends_run(store, videos):
            return
        if not alone:  # the array, and what dead processes have not written
            films = Films(wanted, name, videos, frames, mark=mark, heard=film.heard)
            write_lacking(args, store, films, vqgan, videos, film.total)
    except KeyboardInterrupt:
        sampling.say(f"\nstopped; what is made is kept in {store.folder}, and the same command goes on with it")
        raise
    films.finish()
    scores = score(film.judge, store, vqgan, videos, wanted.batch_size) if film.judge else None
    sampling.finish(store, videos, films, film.given, wanted.batch_size, scores, args.decode_group_norm_in_pieces)


@dataclass
class Batch:
    """Videos that are made together, and their journal once there is one."""

    videos: list[Video]
    journal: Journal | None = None


def open_batches(store: Store, videos: list[Video], batch_size: int) -> Iterator[Batch]:
    """The batches of this process that are not complete: first those that were begun, as they were, then new ones."""
    journals, there = begun(store, videos)
    for journal in journals:
        if all(video.index in store.codes for video in journal.videos):  # stopped just before it was deleted
            journal.close()
            journal.path.unlink()
        else:
            yield Batch(journal.videos, journal)
    missing = store.missing(videos)
    if len(missing) < len(videos):
        sampling.say(f"{len(videos) - len(missing)} of {len(videos)} videos are there already ({store.folder})")
    missing = [video for video in store.missing(share(videos)) if video.index not in there]
    for start in range(0, len(missing), batch_size):
        yield Batch(missing[start : start + batch_size])


def journaled(store: Store, batch: Batch, film: Film, device: torch.device) -> Iterator[Tensor]:
    """The latent frames [B, h, w] of a batch from the first one on: those that are there, then new ones, each on disk
    before it is handed on."""
    journal = batch.journal
    given = None if film.given is None else film.given.known(batch.videos)
    count = 0 if given is None else given.shape[1]
    done = 0 if journal is None else journal.done
    back = film.keep(done, count, len(batch.videos))
    known = given
    if journal is not None:
        for number in range(done):
            yield tensor(journal.read(range(number, number + 1)), device)[:, 0]
        if back.stop > count:
            known = tensor(journal.read(back), device)
    if done < film.total:
        for number, frame in enumerate(film.make(batch.videos, known, back.start), back.start):
            if number < done:
                continue
            if journal is None:
                journal = store.begin(batch.videos, (frame.shape[1], frame.shape[2]))
            journal.append(frame.cpu().numpy())
            yield frame
    if journal is not None:
        journal.close()
        store.settle(journal)


def write_lacking(args: Any, store: Store, films: Films, vqgan: VQGAN, videos: Sequence[Video], total: int) -> None:
    """Files that are not there yet, of videos whose codes are."""
    device, at_once = next(vqgan.parameters()).device, args.output.batch_size
    left = films.lacking(videos)
    for start in range(0, len(left), at_once):
        group = left[start : start + at_once]
        write(args, films, vqgan, group, stored(store, group, device), total)


def stored(store: Store, videos: Sequence[Video], device: torch.device) -> Iterator[Tensor]:
    """The latent frames [B, h, w] of videos whose codes are complete."""
    rows = [store.codes.rows[video.index].pieces() for video in videos]
    for pieces in zip(*rows):
        yield from tensor(np.stack(pieces), device).unbind(1)


def write(args: Any, films: Films, vqgan: VQGAN, videos: Sequence[Video], latent: Iterator[Tensor], total: int) -> None:
    """Decode and write a batch as its latent frames come; all of them are asked for, whatever is there already."""
    shown = sampling.counted(latent, total)
    if films.lacking(videos):
        films.write(videos, decode_stream(vqgan, shown, group_norm_in_pieces=args.decode_group_norm_in_pieces))
    for _ in shown:
        pass


def tensor(codes: np.ndarray, device: torch.device) -> Tensor:
    """Codes from a file as int64."""
    return torch.from_numpy(codes).long().to(device)
