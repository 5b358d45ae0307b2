"""Sample videos from sound: from the clips of a data set, or from a sound file of any length.

python sample_audio_cond.py --gpt_ckpt G.ckpt --vqgan_ckpt V.ckpt --stft_vqgan_ckpt S.ckpt --dataset drum --n_sample 10
python sample_audio_cond.py --gpt_ckpt G.ckpt --vqgan_ckpt V.ckpt --stft_vqgan_ckpt S.ckpt --audio drums.wav --fps 30
"""

from dataclasses import replace

from tats import flags
from tats.gpt.sample_config import AudioConfig


def main() -> None:
    """Parse, load, listen, sample, write."""
    args = flags.parse(AudioConfig)
    from tats import checkpoint, conditions, listening, long_run, output, sampling
    from tats.gpt import api, endless

    sampling.needed(args, "gpt_ckpt", "vqgan_ckpt", "stft_vqgan_ckpt")
    device = sampling.device_of(args.draw.device)
    gpt, vqgan = checkpoint.load_pair(args.gpt_ckpt, args.vqgan_ckpt, device, args.stft_vqgan_ckpt)
    sounds = checkpoint.load_sound_vqgan(args.gpt_ckpt, args.stft_vqgan_ckpt, device)
    heard = listening.listen(args, gpt.config, vqgan, sounds)
    args = replace(args, output=args.output.filled(2048 if args.audio is None else 1, heard.fps))
    alone = args.audio is not None
    wanted = conditions.conditions_of(gpt.config, args.output, vqgan, heard.total, by_window=alone, sound=alone)
    wanted = listening.with_classes(wanted, args, gpt.config, heard)
    videos = sampling.videos_of(gpt.config, args, wanted)
    context = listening.context_of(args, gpt.config)
    settings = {"length": heard.total, "context": context, **heard.settings}
    store = sampling.open_store(args, {"gpt": gpt, "vqgan": vqgan, "stft_vqgan": sounds}, wanted, None, **settings)

    def make(batch, known, start):
        more = {"seeds": [video.seed for video in batch], "sound": heard.codes(batch), **wanted.of(batch)}
        more |= {**args.draw.settings, "steps": store.steps}
        if heard.total <= gpt.config.latent_shape[0]:
            return iter(api.sample_codes(gpt, heard.total, **more).unbind(1))
        return api.sample_long_codes(gpt, heard.total, context, known=known, start=start, **more)

    def keep(done: int, known: int, batch: int) -> range:
        whole = args.draw.as_published or heard.total <= gpt.config.latent_shape[0]
        return range(0) if whole else endless.back_long(done, known, context)

    name = output.run_name(args.draw.top_k, args.draw.top_p, args.draw.run)
    store.entries["sound"] = heard.entry
    listening.write_truth(args, heard, videos, name)
    film = long_run.Film(heard.total, make, keep, heard=heard.heard)
    long_run.make_films(args, store, vqgan, videos, name, film)


if __name__ == "__main__":
    flags.run(main)
