"""Sample long videos with two transformers: coarse frames first, then the frames between them.

python sample_hierarchical.py --ckpt1 COARSE.ckpt --ckpt2 BETWEEN.ckpt --vqgan V.ckpt --sample_length 64 --n_sample 4
"""

from tats import flags
from tats.gpt.sample_config import HierarchicalConfig


def main() -> None:
    """Parse, load, sample, write, judge."""
    args = flags.parse(HierarchicalConfig)
    from tats import changes, checkpoint, conditions, joined_sounds, judging, long_run, output, sampling
    from tats.gpt import api, endless

    sampling.needed(args, "ckpt1", "ckpt2", "vqgan")
    schedule = changes.read_schedule(args.schedule)
    args = schedule.begun(args)
    device = sampling.device_of(args.draw.device)
    coarse, vqgan = checkpoint.load_pair(args.ckpt1, args.vqgan, device, args.stft_vqgan_ckpt)
    fine = checkpoint.load_transformer(args.ckpt2, args.vqgan, args.stft_vqgan_ckpt, device=device)
    side = sampling.side_of(coarse, args.sample_resolution, wide=False)
    step, context = fine.config.latent_shape[0] - 1, args.temporal_sample_pos
    frames = long_run.latent_length(args.frames, args.sample_length, vqgan, step)
    judge = judging.opened(args, judging.data_of(args.judge), frames, vqgan)
    given = sampling.given_by(args, coarse.config, vqgan, side, frames)
    changing = schedule.changes(coarse.config, args.output, vqgan, frames)
    pair = {args.ckpt1: coarse.config, args.ckpt2: fine.config}
    sounds = joined_sounds.joined_sounds(args, schedule, pair, vqgan, frames)
    wanted = conditions.conditions_of(coarse.config, args.output, vqgan, frames, sound=bool(sounds.given))
    videos = sampling.videos_of(coarse.config, args, wanted, given)
    settings = {"length": frames - 1, "context": context, **schedule.settings, **sounds.settings}
    store = sampling.open_store(
        args, {"coarse": coarse, "fine": fine, "vqgan": vqgan, **sounds.models}, wanted, given, **settings
    )
    store.entries |= sounds.entries

    def make(batch, known, start):
        more = {"seeds": [video.seed for video in batch], "known": known, "start": start}
        more |= {"gap_batch": args.gap_batch, "schedule": changing, "steps": store.steps, **sounds.given}
        return api.sample_hierarchical_codes(
            coarse, fine, frames, context, **more, **wanted.of(batch), **args.draw.settings
        )

    def keep(done: int, known: int, batch: int) -> range:
        if args.draw.as_published:
            return range(known)
        return endless.back_between(done, known, context, step, max(args.gap_batch // batch, 1))

    name = output.run_name(args.draw.top_k, args.draw.top_p, args.draw.run, f"hier_{frames - 1}_{context}_")
    film = long_run.Film(frames, make, keep, given, judge, sounds.heard)
    long_run.make_films(args, store, vqgan, videos, name, film)


if __name__ == "__main__":
    flags.run(main)
