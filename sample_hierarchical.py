"""Sample long videos with two transformers: coarse frames first, then the frames between them.

python sample_hierarchical.py --ckpt1 COARSE.ckpt --ckpt2 BETWEEN.ckpt --vqgan V.ckpt --sample_length 64 --n_sample 4
"""

from tats import flags
from tats.gpt.sample_config import HierarchicalConfig


def main() -> None:
    """Parse, load, sample, write."""
    args = flags.parse(HierarchicalConfig)
    import torch

    from tats import checkpoint, output, sampling
    from tats.gpt.api import sample_hierarchical_codes

    sampling.needed(args, "ckpt1", "ckpt2", "vqgan")
    if args.compute_fvd:
        sampling.say("--compute_fvd has no effect on long videos; `tats evaluate` compares sets of videos")
    device = sampling.device_of(args.draw.device)
    coarse, vqgan = checkpoint.load_pair(args.ckpt1, args.vqgan, device)
    fine = checkpoint.load_transformer(args.ckpt2, args.vqgan, device=device)
    videos = sampling.videos_of(coarse.config, args.output, args.draw)
    sampling.side_of(coarse, args.sample_resolution, wide=False)
    frames, context = args.sample_length + 1, args.temporal_sample_pos
    models = {"coarse": coarse, "fine": fine, "vqgan": vqgan}
    store = sampling.open_store(args, models, length=args.sample_length, context=context)

    def make(batch: list[output.Video]):
        condition = sampling.condition_of(coarse.config, args.output, batch)
        seeds = [video.seed for video in batch]
        made = sample_hierarchical_codes(coarse, fine, frames, context, seeds=seeds, **condition, **args.draw.settings)
        return torch.stack(list(sampling.counted(made, frames)), 1)

    size = args.output.batch_size
    sampling.make_missing(store, videos, size, make)
    name = output.run_name(args.draw.top_k, args.draw.top_p, args.draw.run, f"hier_{args.sample_length}_{context}_")
    sampling.write_all(args, store, vqgan, videos, name, 1, None)


if __name__ == "__main__":
    flags.run(main)
