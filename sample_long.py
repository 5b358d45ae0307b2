"""Sample videos of any length with a sliding window.

python sample_long.py --gpt_ckpt G.ckpt --vqgan_ckpt V.ckpt --sample_length 64 --temporal_sample_pos 2 --n_sample 5
"""

from tats import flags
from tats.gpt.sample_config import LongConfig


def main() -> None:
    """Parse, load, sample, write, judge."""
    args = flags.parse(LongConfig)
    from tats import changes, checkpoint, conditions, joined_sounds, judging, long_run, output, queued, sampling
    from tats.gpt import api, endless

    sampling.needed(args, "gpt_ckpt", "vqgan_ckpt")
    schedule = changes.read_schedule(args.schedule)
    args = schedule.begun(args)
    device = sampling.device_of(args.draw.device)
    gpt, vqgan = checkpoint.load_pair(args.gpt_ckpt, args.vqgan_ckpt, device, args.stft_vqgan_ckpt)
    lengths, context = queued.latent_lengths(args, vqgan), args.temporal_sample_pos
    length = max(lengths)
    side, trained = sampling.side_of(gpt, args.sample_resolution), gpt.config.latent_shape
    judge = judging.opened(args, judging.data_of(args.judge), length, vqgan)
    given = sampling.given_by(args, gpt.config, vqgan, side, length)
    changing = schedule.changes(gpt.config, args.output, vqgan, length)
    sounds = joined_sounds.joined_sounds(args, schedule, {args.gpt_ckpt: gpt.config}, vqgan, length)
    more = {"by_window": True, "sound": bool(sounds.given)}
    wanted = conditions.conditions_of(gpt.config, args.output, vqgan, length, **more)
    videos = sampling.videos_of(gpt.config, args, wanted, given)
    settings = {"context": context, "side": side, **schedule.settings, **sounds.settings}
    settings["length"] = length if len(lengths) == 1 else lengths
    store = sampling.open_store(args, {"gpt": gpt, "vqgan": vqgan, **sounds.models}, wanted, given, **settings)
    store.entries |= sounds.entries

    def make(batch, known, start):
        more = {"seeds": [video.seed for video in batch], "known": known, "start": start, **wanted.of(batch)}
        more |= {"schedule": changing, "steps": store.steps, **sounds.given, **args.draw.settings}
        if side == trained[1]:
            return api.sample_long_codes(gpt, length, context, **more)
        return api.sample_wide_codes(gpt, length, (side, side), context, **more)

    def keep(done: int, known: int, batch: int) -> range:
        if args.draw.as_published:
            return range(known)
        if side == trained[1]:
            return endless.back_long(done, known, context)
        return endless.back_wide(done, known, trained[0])

    told = "-".join(map(str, lengths))
    name = output.run_name(args.draw.top_k, args.draw.top_p, args.draw.run, f"temp_{told}_{context}_")
    if len(lengths) > 1:
        of = lambda video: {"schedule": changing, **sounds.given, **wanted.of([video])}
        return queued.make_films(args, gpt, store, vqgan, videos, name, lengths, of, sounds.heard)
    film = long_run.Film(length, make, keep, given, judge, sounds.heard)
    long_run.make_films(args, store, vqgan, videos, name, film)


if __name__ == "__main__":
    flags.run(main)
