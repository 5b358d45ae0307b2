"""What the sampling scripts share: models, seeds and classes, batch after batch, then files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tats import checkpoint, flags, output, shared_work
from tats.conditions import Conditions
from tats.continuation import Continuation, open_continuation
from tats.films import Films
from tats.flags import UserError
from tats.gpt.config import GPTConfig
from tats.gpt.engine import only_packed
from tats.gpt.model import GPT
from tats.gpt.sample_config import DrawConfig, OutputConfig
from tats.joint_scores import with_joint
from tats.launched import first, launched, say
from tats.output import Store, Video
from tats.vqgan.model import VQGAN

Make = Callable[[list[Video]], Tensor]  # codes int64 [B, t, h, w] of some videos
SEEDS_PER_RUN = 1_000_000


def device_of(name: str | None) -> torch.device:
    """The device that --device names, by default a GPU if there is one."""
    if name in (None, "auto"):
        gpus = torch.cuda.device_count()
        return torch.device(
            f"cuda:{launched().local_rank % gpus}" if launched().size > 1 and gpus else "cuda" if gpus else "cpu"
        )
    try:
        device = torch.device(str(name))
    except RuntimeError:
        raise UserError(f"--device {name} is no device: cpu, cuda or cuda:1, say") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this machine has no GPU that torch can use; take --device cpu")
    return device


def needed(args: Any, *names: str) -> None:
    """Checkpoints that must be given."""
    for name in names:
        if not getattr(args, name):
            raise UserError(f"--{name} is needed: the path of a checkpoint, or the name of a released model")


def given_by(args: Any, config: GPTConfig, vqgan: VQGAN, side: int, total: int) -> Continuation | None:
    """What --continue_from gives, checked; None without it. side, total: see `tats.continuation.open_continuation`."""
    wanted: OutputConfig = args.output
    in_pieces = getattr(args, "decode_group_norm_in_pieces", False)
    return open_continuation(args.given, config, vqgan, side, total, wanted.label, wanted.fps, in_pieces)


def videos_of(config: GPTConfig, args: Any, conditions: Conditions, given: Continuation | None = None) -> list[Video]:
    """The videos of a run: seeds that count on, classes by turns, or what goes on from given videos."""
    draw: DrawConfig = args.draw
    first_seed = draw.seed + draw.run * SEEDS_PER_RUN
    if given is not None:
        return given.videos(args.output.n_sample, first_seed)
    return output.spread(args.output.n_sample, first_seed, conditions.labels, config.label_names)


def side_of(gpt: GPT, asked: int | None, wide: bool = True) -> int:
    """Rows and columns of codes of a picture: as trained, or as --sample_resolution asks."""
    trained = gpt.config.latent_shape[1]
    if asked is None or asked == trained:
        return trained
    if wide and gpt.config.places_shape is not None:
        return asked
    raise UserError(
        f"--sample_resolution {asked}: this transformer makes pictures of {trained}x{trained} codes; leave it out"
        + (", or train one with --vtokens_pos" if wide else "")
    )


def counted(frames: Iterator[Tensor], total: int) -> Iterator[Tensor]:
    """The same latent frames, with a line of progress."""
    with tqdm(frames, total=total, desc="latent frames", unit="frame", leave=False, mininterval=0.5) as bar:
        yield from bar


def open_store(
    args: Any,
    models: dict[str, GPT | VQGAN],
    conditions: Conditions,
    given: Continuation | None = None,
    **settings: Any,
) -> Store:
    """The folder of a run, with what is already there; `settings`: more that the codes depend on."""
    prints = {name: checkpoint.fingerprint(model) for name, model in models.items()}
    draw = {**args.draw.settings, "seed": args.draw.seed, "run": args.draw.run}
    wanted = {"label": args.output.label, **conditions.settings, **(given.settings if given else {})}
    about = {"flags": flags.to_dict(args), "versions": output.versions()}
    flags.new_folder(args.output.save, "--save")
    for model in models.values():
        if isinstance(model, GPT) and args.draw.precision != "fp32":  # nothing reads its float32 weights any more
            only_packed(model, whole_vocabulary=args.draw.as_published, precision=args.draw.precision)
    store = Store(args.output.save, {**draw, **wanted, **settings, **prints}, about, conditions.entries)
    shared_work.begin(store)
    return store


def make_missing(store: Store, videos: list[Video], batch_size: int, make: Make) -> None:
    """Make what is not there yet of this process's share, a batch at a time; after Ctrl-C everything that was finished
    is kept."""
    there = len(videos) - len(store.missing(videos))
    if there:
        say(f"{there} of {len(videos)} videos are there already ({store.folder})")
    missing = store.missing(shared_work.share(videos))
    with tqdm(total=len(missing), desc="codes", unit="video", disable=not missing or not first()) as bar:
        try:
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                store.add(batch, make(batch).cpu().numpy())
                bar.update(len(batch))
        except KeyboardInterrupt:
            done = len(videos) - len(store.missing(videos))
            say(f"\nstopped: {done} of {len(videos)} videos are in {store.folder}; the same command makes the rest")
            raise


@torch.inference_mode()
def decode(store: Store, vqgan: VQGAN, videos: Sequence[Video]) -> Tensor:
    """Some videos at once: float [B, C, T, H, W]."""
    codes = torch.from_numpy(np.stack([store.codes[video.index] for video in videos])).long()
    return vqgan.decode(codes.to(next(vqgan.parameters()).device))


def ends_run(
    args: Any,
    store: Store,
    vqgan: VQGAN,
    videos: list[Video],
    name: str,
    judged: bool,
    given: Continuation | None = None,
) -> bool:
    """Whether this process goes on: with several, each writes the films of its share, and one puts all together."""
    own = shared_work.share(videos)
    if launched().size > 1 and own:
        films = films_of(args, store, vqgan, own, name, judged, given, array=False)
        write_films(films, store, vqgan, own, args.data.batch_size)
    return shared_work.ends_run(store, videos)


def films_of(
    args: Any,
    store: Store,
    vqgan: VQGAN,
    videos: Sequence[Video],
    name: str,
    judged: bool,
    given: Continuation | None,
    array: bool = True,
) -> Films:
    """The films of some clips, whose codes are there."""
    frames = store.codes.rows[videos[0].index].shape[0] * vqgan.config.downsample[0]
    mark = None if given is None else given.mark
    return Films(args.output, name, videos, frames, otherwise=judged, mark=mark, array=array)


def write_films(films: Films, store: Store, vqgan: VQGAN, videos: Sequence[Video], batch_size: int) -> None:
    """What is lacking of the films of some clips."""
    left = films.lacking(videos)
    for start in range(0, len(left), batch_size):
        batch = left[start : start + batch_size]
        films.write(batch, [decode(store, vqgan, batch)])


def write_all(
    args: Any,
    store: Store,
    vqgan: VQGAN,
    videos: list[Video],
    name: str,
    scores: Mapping[str, Any] | None,
    given: Continuation | None = None,
) -> None:
    """Videos and arrays of clips as the flags ask, then one file of codes and the manifest."""
    films, batch_size = films_of(args, store, vqgan, videos, name, bool(scores), given), args.data.batch_size
    if films.kinds:
        say(f"videos: {films.folder}")
    write_films(films, store, vqgan, videos, batch_size)
    if (array := films.finish()) is not None:
        say(f"array: {array}")
    finish(store, videos, films, given, batch_size, scores)


def finish(
    store: Store,
    videos: list[Video],
    films: Films,
    given: Continuation | None,
    batch_size: int,
    scores: Mapping[str, Any] | None,
    in_pieces: bool = False,
) -> None:
    """One file of codes and the manifest, with the scores; those of the joint with what was given are among them."""
    entries: dict[str, Callable[[Video], Any]] = {"file": films.entry} if films.kinds else {}
    if given is not None:
        entries["given"] = given.entry
        scores = with_joint(given, store, videos, batch_size, scores, in_pieces)
    store.finish(videos, scores, **entries)
    if store.steps.codes:
        way, steps = store.settings["decode"], store.steps
        say(f"{way}: {steps.codes} codes in {steps.steps} steps, {steps.codes_per_step:.2f} codes of a video per step")
    shared_work.clear(store)
    say(f"codes and manifest: {store.folder}")
