"""Long videos of several lengths in one run: a queue makes their codes, each film is written when its codes are there.

    sample_long.py --frames 64 256 1024 ...       # lengths take turns, as classes do

Every video has a journal of its own while it is made. A run that was stopped goes on with what the journals hold; the
rest of a video comes out as it would have, up to the rounding of matrix products, since other videos may be beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from tats import sampling
from tats.codes_file import Journal, Video
from tats.films import Films, Heard
from tats.flags import UserError
from tats.gpt.endless import back_long
from tats.gpt.model import GPT
from tats.gpt.plans import check_context
from tats.gpt.queue import Request, sample_queue_frames
from tats.long_run import latent_length, stored, tensor, write
from tats.output import Store
from tats.shared_work import begun, ends_run, share
from tats.vqgan.model import VQGAN
from tats.vqgan.stream import refusal

Ask = Callable[[Video], dict[str, Any]]  # the condition of a video, as `Request` takes it


def latent_lengths(args: Any, vqgan: VQGAN) -> list[int]:
    """Latent frames of the videos of a run, which take turns: one number, or several with --frames of several values.

    Raises:
        UserError: one does not fit, or something is asked for that is made of videos of one length.
    """
    frames = args.frames if isinstance(args.frames, list) else [args.frames]
    lengths = [latent_length(each, args.sample_length, vqgan) for each in frames or [None]]
    if len(set(lengths)) == 1:
        return lengths[:1]
    refused = {
        "--save_arrays": args.output.save_arrays,
        "--compute_fvd": args.judge.compute_fvd,
        "--continue_from": args.given.continue_from is not None,
        "--sample_resolution": args.sample_resolution is not None,
        "--audio": args.audio is not None,
    }
    wrong = [flag for flag, given in refused.items() if given]
    if wrong:
        raise UserError(f"--frames of several values does not go with {', '.join(wrong)}: give one number of frames")
    return lengths


def make_films(
    args: Any,
    gpt: GPT,
    store: Store,
    vqgan: VQGAN,
    videos: list[Video],
    name: str,
    lengths: Sequence[int],
    ask: Ask,
    heard: Heard | None = None,
) -> None:
    """Make the videos of a run, `lengths` by turns, --batch_size of them at once."""
    whole = vqgan.config.norm_type == "group" and not args.decode_group_norm_in_pieces
    if whole and max(lengths) > vqgan.latent_shape[0]:
        raise refusal(vqgan)
    check_context(args.temporal_sample_pos, min(lengths), gpt.config.latent_shape[0])
    total = {video.index: lengths[video.index % len(lengths)] for video in videos}
    films = Films(args.output, name, videos, 0, heard=heard)
    sampling.say(f"videos: {films.folder}")
    try:
        make_codes(args, gpt, store, vqgan, films, videos, total, ask)
        for video in films.lacking(share(videos)):
            write_one(args, store, films, vqgan, video)
        if not ends_run(store, videos):
            return
        for video in films.lacking(videos):  # what dead processes have not written
            write_one(args, store, films, vqgan, video)
    except KeyboardInterrupt:
        sampling.say(f"\nstopped; what is made is kept in {store.folder}, and the same command goes on with it")
        raise
    sampling.finish(store, videos, films, None, 1, None, args.decode_group_norm_in_pieces)


def make_codes(
    args: Any,
    gpt: GPT,
    store: Store,
    vqgan: VQGAN,
    films: Films,
    videos: list[Video],
    total: dict[int, int],
    ask: Ask,
) -> None:
    """The codes that are not there yet of this process's share, each frame on disk as soon as it is made."""
    journals: dict[int, Journal] = {}  # by the index of the video
    for journal in begun(store, videos)[0]:
        if journal.videos[0].index in store.codes:  # stopped just before it was deleted
            journal.close()
            journal.path.unlink()
        else:
            journals[journal.videos[0].index] = journal
    wanted = store.missing(share(videos))
    if len(wanted) < len(share(videos)):
        sampling.say(f"{len(share(videos)) - len(wanted)} of {len(share(videos))} videos are there already")
    device = next(vqgan.parameters()).device
    requests = [known(ask, video, total[video.index], journals.get(video.index), args, device) for video in wanted]
    done = {video.index: request.start for video, request in zip(wanted, requests)}
    settings = {**args.draw.settings, "steps": store.steps}
    with tqdm(total=sum(total.values()), initial=sum(done.values()), desc="latent frames", unit="frame") as bar:
        for number, frame in sample_queue_frames(gpt, requests, args.output.batch_size, **settings):
            video = wanted[number]
            journal = journals.get(video.index) or store.begin([video], (frame.shape[0], frame.shape[1]))
            journals[video.index] = journal
            if done[video.index] == journal.done:  # else it was read from the journal
                journal.append(frame[None].cpu().numpy())
            done[video.index] += 1
            bar.update()
            if done[video.index] == total[video.index]:
                journal.close()
                store.settle(journals.pop(video.index))
                write_one(args, store, films, vqgan, video)


def known(ask: Ask, video: Video, total: int, journal: Journal | None, args: Any, device: torch.device) -> Request:
    """The request for a video, with what its journal holds of it."""
    request = Request(total, video.seed, args.temporal_sample_pos, **ask(video))
    if journal is None or args.draw.as_published:
        return request
    back = back_long(journal.done, 0, args.temporal_sample_pos)
    if not len(back):
        return request
    codes = tensor(journal.read(back), device)[0]  # [n, h, w]
    return replace(request, known=codes, start=back.start)


def write_one(args: Any, store: Store, films: Films, vqgan: VQGAN, video: Video) -> None:
    """Decode and write a video whose codes are there."""
    device = next(vqgan.parameters()).device
    write(args, films, vqgan, [video], stored(store, [video], device), store.codes.rows[video.index].shape[0])
