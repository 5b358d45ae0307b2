"""Train a VQGAN: videos become codes, codes become videos. With --stft_data, sounds instead of videos.

python train_vqgan.py --data_path data/shapes --resolution 64 --n_hiddens 32 --downsample 4 8 8 --norm_type batch
"""

from dataclasses import dataclass, field

from tats import flags
from tats.data.config import DataConfig
from tats.score_config import ScoreConfig
from tats.trainer_config import TrainerConfig, effective_batch, vqgan_rate
from tats.vqgan.config import VQGANConfig
from tats.vqgan.train_config import VQGANTrainConfig


@dataclass(frozen=True)
class Config:
    """Trains a VQGAN: encoder, codebook and decoder, against a critic of frames and a critic of clips."""

    model: VQGANConfig = field(default_factory=VQGANConfig)
    training: VQGANTrainConfig = field(default_factory=VQGANTrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


def main() -> None:
    """Parse, build, train."""
    args = flags.parse(Config)
    from tats import metrics_callback, training
    from tats.data.module import VideoData
    from tats.run_folder import say
    from tats.vqgan.train import VQGANTraining
    from tats.vqgan.train_setup import model_config, perceptual, start

    training.begin(args.trainer)
    trainer, processes = args.trainer, training.processes(args.trainer)
    rate, factors = vqgan_rate(args.training.lr, args.data.batch_size, trainer.accumulate, processes)
    model = model_config(args.model, args.data, args.training)
    module = VQGANTraining(
        model, args.training, lr=rate, accumulate=trainer.accumulate, clip=trainer.gradient_clip_val,
        clip_by=trainer.gradient_clip_algorithm, total_updates=trainer.max_steps if trainer.max_steps > 0 else None,
        sync_batchnorm=trainer.sync_batchnorm, seed=trainer.seed, lpips=perceptual(args.training),
        vqgan=start(args.training, model),
    )  # fmt: skip
    data = VideoData(args.data, seed=trainer.seed, sounds_alone=args.data.stft_data)
    say(effective_batch(args.data.batch_size, trainer.accumulate, processes) + "\n" + factors)
    more = {"settings": args, "callbacks": metrics_callback.vqgan_scores(args.score, args.data, trainer.seed)}
    loaders = (data.train_loader(raw=True), data.test_loader(raw=True))
    training.fit(module, *loaders, trainer, name="vqgan", cadence=training.VQGAN_CADENCE, **more)


if __name__ == "__main__":
    flags.run(main)
