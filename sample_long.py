"""Sample videos of any length with a sliding window.

python sample_long.py --gpt_ckpt G.ckpt --vqgan_ckpt V.ckpt --sample_length 64 --temporal_sample_pos 2 --n_sample 5
"""

from tats import flags
from tats.gpt.sample_config import LongConfig


def main() -> None:
    """Parse, load, sample, write."""
    args = flags.parse(LongConfig)
    import torch

    from tats import checkpoint, output, sampling
    from tats.gpt.api import sample_long_codes, sample_wide_codes

    sampling.needed(args, "gpt_ckpt", "vqgan_ckpt")
    gpt, vqgan = checkpoint.load_pair(args.gpt_ckpt, args.vqgan_ckpt, sampling.device_of(args.draw.device))
    videos = sampling.videos_of(gpt.config, args.output, args.draw)
    length, context = args.sample_length, args.temporal_sample_pos
    side = sampling.side_of(gpt, args.sample_resolution)
    store = sampling.open_store(args, {"gpt": gpt, "vqgan": vqgan}, length=length, context=context, side=side)

    def make(batch: list[output.Video]):
        condition = sampling.condition_of(gpt.config, args.output, batch)
        more = {"seeds": [video.seed for video in batch], **condition, **args.draw.settings}
        if side == gpt.config.latent_shape[1]:
            frames = sample_long_codes(gpt, length, context, **more)
        else:
            frames = sample_wide_codes(gpt, length, (side, side), context, **more)
        return torch.stack(list(sampling.counted(frames, length)), 1)

    size = args.output.batch_size
    sampling.make_missing(store, videos, size, make)
    name = output.run_name(args.draw.top_k, args.draw.top_p, args.draw.run, f"temp_{length}_{context}_")
    sampling.write_all(args, store, vqgan, videos, name, 1, None)


if __name__ == "__main__":
    flags.run(main)
