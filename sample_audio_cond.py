"""Sample videos from sound.

python sample_audio_cond.py --gpt_ckpt G.ckpt --vqgan_ckpt V.ckpt --stft_vqgan_ckpt S.ckpt --dataset drum --n_sample 10
"""

from tats import flags
from tats.gpt.sample_config import AudioConfig


def main() -> None:
    """Parse, and say what there is."""
    flags.parse(AudioConfig)
    raise flags.UserError(
        "sound files are not read by this script yet; tats.sample_codes(gpt, sound=codes) makes videos from the codes "
        "of a sound, which tats.load_vqgan(STFT).encode(stft) gives"
    )


if __name__ == "__main__":
    flags.run(main)
