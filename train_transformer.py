"""Train a transformer over the codes of a VQGAN.

python train_transformer.py --vqvae V.ckpt --data_path data/shapes --block_size 0 --n_layer 4 --n_head 4 --n_embd 128
"""

from dataclasses import dataclass, field

from tats import flags
from tats.data.config import DataConfig
from tats.gpt.config import GPTConfig
from tats.gpt.train_config import GPTTrainConfig
from tats.score_config import ScoreConfig
from tats.shown_config import ShownConfig
from tats.trainer_config import TrainerConfig


@dataclass(frozen=True)
class Config:
    """Trains a transformer over the codes of a VQGAN: unconditional, or by label, text, sound, semantic map."""

    gpt: GPTConfig = field(default_factory=GPTConfig)
    training: GPTTrainConfig = field(default_factory=GPTTrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    shown: ShownConfig = field(default_factory=ShownConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


def main() -> None:
    """Parse, build, train."""
    args = flags.parse(Config)
    from tats import checkpoint, metrics_callback, shown_clips, training
    from tats.gpt import train_condition, train_setup
    from tats.gpt.train import GPTTraining
    from tats.run_folder import say

    training.begin(args.trainer)
    data, frozen, texts = train_condition.opened(args.gpt, args.training, args.data, args.trainer.seed)
    config, remarks = train_setup.fit_to_data(args.gpt, args.training, data, frozen, texts)
    accumulate, size = args.trainer.accumulate, args.data.batch_size
    learning_rate, factors = train_setup.rate(args.training, accumulate, training.processes(args.trainer), size)
    say("\n".join([*remarks, *factors]))
    fingerprint = checkpoint.fingerprint(frozen.vqgan) if frozen.vqgan else data.fingerprint
    more = {"sound_vqgan": frozen.sound, "smap_vqgan": frozen.smap, "text_tokens": texts, "seed": args.trainer.seed}
    module = GPTTraining(
        train_setup.start(config, args.training, frozen.vqgan, args.trainer.seed),
        args.training,
        learning_rate,
        vqgan=None if args.data.vtokens else frozen.vqgan,
        extra={"vqgan": fingerprint, "label_names": config.label_names, **frozen.prints(data)},
        **more,
    )
    shown = shown_clips.gpt_clips(args.shown.log_videos_every, config, frozen.vqgan, args.trainer)
    watchers = [*shown, *metrics_callback.gpt_scores(args.score, args.data, config, frozen.vqgan, args.trainer.seed)]
    more = {"name": "transformer", "cadence": training.TRANSFORMER_CADENCE, "settings": args, "callbacks": watchers}
    training.fit(module, data.train_loader(raw=True), data.test_loader(raw=True), args.trainer, **more)


if __name__ == "__main__":
    flags.run(main)
