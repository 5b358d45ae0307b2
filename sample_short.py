"""Sample clips of the length a transformer was trained on, and judge them.

python sample_short.py --gpt_ckpt G.ckpt --vqgan_ckpt V.ckpt --save results/shapes --n_sample 24 --top_p 0.8
"""

from tats import flags
from tats.gpt.sample_config import ShortConfig


def main() -> None:
    """Parse, load, sample, write, judge."""
    args = flags.parse(ShortConfig)
    from tats import checkpoint, conditions, judging, output, sampling
    from tats.gpt.api import sample_codes

    sampling.needed(args, "gpt_ckpt", "vqgan_ckpt")
    gpt, vqgan = checkpoint.load_pair(args.gpt_ckpt, args.vqgan_ckpt, sampling.device_of(args.draw.device))
    length, side, _ = gpt.config.latent_shape
    judge = judging.opened(args, args.data, length, vqgan)
    given = sampling.given_by(args, gpt.config, vqgan, side, length)
    wanted = conditions.conditions_of(gpt.config, args.output, vqgan, length)
    videos = sampling.videos_of(gpt.config, args, wanted, given)
    store = sampling.open_store(args, {"gpt": gpt, "vqgan": vqgan}, wanted, given)

    def make(batch: list[output.Video]):
        known = given.known(batch) if given else None
        seeds = [video.seed for video in batch]
        return sample_codes(gpt, seeds=seeds, known=known, **wanted.of(batch), **args.draw.settings, steps=store.steps)

    sampling.make_missing(store, videos, args.data.batch_size, make)
    name = output.run_name(args.draw.top_k, args.draw.top_p, args.draw.run)
    if not sampling.ends_run(args, store, vqgan, videos, name, judge is not None, given):
        return
    scores = judging.score(judge, store, vqgan, videos, args.data.batch_size) if judge else None
    sampling.write_all(args, store, vqgan, videos, name, scores, given)


if __name__ == "__main__":
    flags.run(main)
