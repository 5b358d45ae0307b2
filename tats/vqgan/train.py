"""Training of the VQGAN: two players with their optimizers, losses and logs."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tats import flags
from tats.callbacks import over_processes
from tats.compiling import compile_in_place
from tats.flags import UserError
from tats.schedule import rate_factor
from tats.video import with_video
from tats.vqgan.config import VQGANConfig
from tats.vqgan.discriminator import Discriminator
from tats.vqgan.draws import Draws, processes
from tats.vqgan.losses import (
    Critics,
    Terms,
    critic_terms,
    generator_terms,
    map_accuracy,
    map_of,
    pick,
    reconstruction,
)
from tats.vqgan.lpips import LPIPS, SMALLEST_SIDE
from tats.vqgan.model import VQGAN
from tats.vqgan.norm import share_statistics, synchronise
from tats.vqgan.pictures import Schedule, show
from tats.vqgan.train_config import VQGANTrainConfig

GENERATOR, CRITIC = 0, 1  # the players
RETIRING = 0.9  # part of the run after which codes that fell out of use retire, with --rate_weight


class VQGANTraining(pl.LightningModule):
    """Trains encoder, codebook and decoder against two critics.

    One update: the generator's forward and backward over `accumulate` batches, its step, the codebook's move; then
    the same for the critics with a new forward of the moved generator, new random frames and another move of the
    codebook. Gradients are clipped for each player by itself. Lightning counts every optimizer's step, `updates` the
    generator's. The state dict holds `vqgan.*`, `image_discriminator.*` and `video_discriminator.*`.
    """

    def __init__(
        self,
        model: VQGANConfig,
        config: VQGANTrainConfig,
        *,
        lr: float | None = None,
        accumulate: int = 1,
        clip: float | None = None,
        clip_by: str | None = None,
        total_updates: int | None = None,
        sync_batchnorm: bool = False,
        seed: int = 1234,
        lpips: LPIPS | None = None,
        vqgan: VQGAN | None = None,
    ):
        """`lr` is the scaled learning rate (None: `config.lr` as it stands); `accumulate` batches make one update;
        `clip` is the largest gradient, by `clip_by` norm or value; `total_updates` ends the cosine; `vqgan` is gone on
        with instead of a new one.
        """
        super().__init__()
        self.automatic_optimization = False
        check_sizes(model, config, lpips)
        self.config, self.seed, self.accumulate = config, seed, accumulate
        self.learning_rate = config.lr if lr is None else lr
        self.clip, self.clip_by, self.total_updates = clip, clip_by or "norm", total_updates
        self.vqgan = vqgan or VQGAN(model)
        self.vqgan.codebook.start, self.vqgan.codebook.rate = config.codebook_start, config.rate_weight
        if config.channels_last:
            self.vqgan.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if config.has_critics:
            sizes = (self.vqgan.config.image_channels, config.disc_channels, config.disc_layers)
            self.image_discriminator = Discriminator(2, *sizes)
            self.video_discriminator = Discriminator(3, *sizes)
        if sync_batchnorm:
            synchronise(self)
        if config.compile:
            compile_in_place([self.vqgan.encoder, self.vqgan.decoder, *(self.critics or ())])
        self._lpips = (lpips,)  # in a tuple: neither trained, nor stored, nor switched to training mode
        self.updates = 0  # finished steps of the generator
        self._batches: list[Tensor] = []  # of the update under way
        self._seen = 0  # their clips, over all processes
        self._schedule = Schedule(config.log_images_every, config.log_videos_every)
        self._early: dict[str, list[int]] | None = None  # of the schedule, as it was when the present tests began

    @property
    def updates_per_step(self) -> int:
        """How far Lightning's `global_step` moves per update of ours: one step of every player."""
        return 2 if self.config.has_critics else 1

    @property
    def batches_per_step(self) -> int:
        """Batches that are accumulated for one update."""
        return self.accumulate

    @property
    def step_complete(self) -> bool:
        """True when no gradients wait for further batches."""
        return not self._batches

    @property
    def codes_per_clip(self) -> int:
        """Codes that one clip has: what the speed in codes per second is reckoned from."""
        return math.prod(self.vqgan.latent_shape)

    @property
    def lpips(self) -> LPIPS | None:
        """The perceptual distance, on this module's device."""
        (lpips,) = self._lpips
        return lpips.to(self.device) if lpips is not None else None

    @property
    def critics(self) -> Critics | None:
        """Both critics, None when their weights are 0."""
        return Critics(self.image_discriminator, self.video_discriminator) if self.config.has_critics else None

    @property
    def of_maps(self) -> bool:
        """Whether clips are semantic maps."""
        return self.vqgan.config.of_maps

    @property
    def factor(self) -> float:
        """0 until the critics count, then 1."""
        return 0.0 if self.updates < self.config.discriminator_iter_start else 1.0

    @property
    def quantises(self) -> bool:
        """Whether the codebook takes part yet."""
        return self.updates >= self.config.vq_start_step

    def players(self) -> list[list[nn.Parameter]]:
        """The parameters of the generator, and of the critics if there are any."""
        own = (self.vqgan.encoder, self.vqgan.decoder, self.vqgan.pre_vq_conv, self.vqgan.post_vq_conv)
        players = [[p for part in own for p in part.parameters()]]
        if self.critics is not None:
            players.append([p for critic in self.critics for p in critic.parameters()])
        return players

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        betas = self.config.adam_betas
        return [torch.optim.Adam(player, lr=self.learning_rate, betas=betas) for player in self.players()]

    # ---- one player, one batch ------------------------------------------------------------------------------------

    def draws(self, player: int) -> Draws:
        """The random numbers of a player for the batch at hand."""
        return Draws(self.seed, self.updates, player, self._seen)

    def generator_loss(self, video: Tensor, draws: Draws, hold: bool = False) -> tuple[Terms, Tensor]:
        """Forward of the generator.  video [B, C, T, H, W] -> its loss, and the reconstruction"""
        rebuilt, quantized = self.vqgan(video, draws, hold=hold, quantise=self.quantises)
        frames = draws.frames(len(video), video.shape[2])
        with self.only_grads_of(GENERATOR):
            terms = generator_terms(
                self.config, self.critics, self.lpips, video, rebuilt, quantized, frames, self.factor, self.of_maps
            )
        return terms, rebuilt

    def critic_loss(self, video: Tensor, draws: Draws, hold: bool = False, rebuilt: Tensor | None = None) -> Terms:
        """Forward of the critics, on a new reconstruction unless `rebuilt` is given.  video [B, C, T, H, W]"""
        if self.critics is None:
            raise ValueError("there are no critics: both of their weights are 0")
        if rebuilt is None:
            with torch.no_grad():
                rebuilt, _ = self.vqgan(video, draws, hold=hold, quantise=self.quantises)
        rebuilt = map_of(rebuilt) if self.of_maps else rebuilt
        frames = draws.frames(len(video), video.shape[2])
        return critic_terms(self.config, self.critics, video, rebuilt, frames, self.factor)

    @contextlib.contextmanager
    def only_grads_of(self, player: int) -> Iterator[None]:
        """Let gradients pass through the other player without being kept for its parameters."""
        others = [p for i, players in enumerate(self.players()) if i != player for p in players]
        for p in others:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in others:
                p.requires_grad_(True)

    # ---- one update -----------------------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Prepared frames become video here, on the device."""
        return with_video(batch)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        video = batch["video"]
        if self.config.channels_last:
            video = video.contiguous(memory_format=torch.channels_last_3d)
        self.log("step", float(self.updates))  # the axis of all logs: updates, not steps of both optimizers
        draws = self.draws(GENERATOR)
        terms, rebuilt = self.generator_loss(video, draws, hold=True)
        self.backward_of(terms.loss)
        self.note("train", terms.parts)
        if self.config.shared_forward and self.critics is not None:
            self.critic_backward(self.critic_loss(video, draws, rebuilt=rebuilt))
        self._batches.append(video)
        self._seen += len(video) * processes()[1]
        if len(self._batches) == self.accumulate or self.trainer.is_last_batch:
            self.finish_update()
        return terms.loss.detach()

    def finish_update(self) -> None:
        """The steps of both players, once the generator's gradients of all batches are there."""
        late = self.total_updates is not None and self.updates >= RETIRING * self.total_updates
        self.vqgan.codebook.retiring = late and self.config.rate_weight > 0
        self.move(GENERATOR)
        self.vqgan.codebook.update()
        if self.critics is not None:
            if not self.config.shared_forward:
                self._seen = 0
                for video in self._batches:
                    self.critic_backward(self.critic_loss(video, self.draws(CRITIC), hold=True))
                    self._seen += len(video) * processes()[1]
            self.move(CRITIC)
            self.vqgan.codebook.update()
        share_statistics(self)
        self._batches.clear()
        self._seen = 0
        self.updates += 1

    def critic_backward(self, terms: Terms) -> None:
        """Gradients of the critics; until they count these are zeros, which need no backward pass."""
        if self.factor > 0:
            self.backward_of(terms.loss)
        self.note("train", terms.parts)

    def backward_of(self, loss: Tensor) -> None:
        """Add gradients up; a batch counts as its share of the accumulated ones."""
        self.manual_backward(loss / self.accumulate)

    def move(self, player: int) -> None:
        """Clip the gradients of one player, step, and clear them."""
        optimizers = self.optimizers()
        optimizer = optimizers[player] if isinstance(optimizers, list) else optimizers
        config, parameters = self.config, self.players()[player]
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        total = self.total_updates or math.inf
        rate = self.learning_rate * rate_factor(self.updates, config.lr_schedule, config.warmup_steps, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if self.clip:
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None:  # gradients in half precision are stored enlarged
                scaler.unscale_(optimizer.optimizer)
            if self.clip_by == "value":
                nn.utils.clip_grad_value_(parameters, self.clip)
            else:
                nn.utils.clip_grad_norm_(parameters, self.clip)
        optimizer.step()
        optimizer.zero_grad()

    # ---- validation, logs, checkpoints ----------------------------------------------------------------------------

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        video = batch["video"]
        rebuilt, quantized = self.vqgan(video, quantise=self.quantises)
        parts = {
            "recon_loss": reconstruction(self.config, video, rebuilt, self.of_maps),
            "perplexity": quantized.perplexity,
            "commitment_loss": quantized.commitment,
        }
        if self.of_maps:
            parts["map_accuracy"] = map_accuracy(video, rebuilt)
        if self.lpips is not None:
            frames = Draws(self.seed, batch_idx, 2).frames(len(video), video.shape[2])
            distance = self.lpips(pick(video, frames), pick(rebuilt, frames)).mean()
            parts["perceptual_loss"] = self.config.perceptual_weight * distance
        self.log("step", float(self.updates), on_step=False, on_epoch=True, batch_size=1)
        self.note("val", parts, len(video))

    def note(self, split: str, parts: dict[str, Tensor], clips: int | None = None) -> None:
        """Log every part under its published name."""
        shown = ("recon_loss", "perplexity", "perceptual_loss", "aeloss", "discloss")
        once = split == "val"
        for name, value in (parts if once else over_processes(self.trainer, parts)).items():
            self.log(
                f"{split}/{name}", value.detach(), prog_bar=name in shown, on_step=not once, on_epoch=once,
                sync_dist=once, batch_size=clips,
            )  # fmt: skip

    def on_fit_start(self) -> None:
        if self.config.lr_schedule == "cosine" and not self.total_updates:
            epochs, batches = self.trainer.max_epochs or -1, self.trainer.num_training_batches
            if epochs < 1 or batches == float("inf"):
                raise UserError("--lr_schedule cosine must know where it ends: give --max_steps or --max_epochs")
            self.total_updates = int(epochs * -(-batches // self.accumulate))

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Tensor], batch_idx: int) -> None:
        show(self, "train", batch["video"], batch_idx, self._schedule)
        every, chosen = self.trainer.log_every_n_steps, self.vqgan.codebook.chosen  # type: ignore[attr-defined]
        if chosen is not None and (batch_idx + 1) % max(every, 1) == 0:
            self.log("train/codes_used", (chosen > 0).float().mean())
            self.vqgan.codebook.chosen = None

    def on_validation_start(self) -> None:
        self._early = {kind: list(batches) for kind, batches in self._schedule.early.items()}

    def on_validation_end(self) -> None:
        self._early = None

    def on_validation_batch_end(
        self, outputs: Any, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        show(self, "val", batch["video"], batch_idx, self._schedule)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["kind"] = "vqgan"
        checkpoint["config"] = flags.to_dict(self.vqgan.config)
        checkpoint["extra"] = {"updates": self.updates, "training": flags.to_dict(self.config)}
        checkpoint["under_way"] = {
            "early": self._schedule.early if self._early is None else self._early,  # tests that are left begin anew
            "chosen": self.vqgan.codebook.chosen,
            "gathered": self.vqgan.codebook.gathered(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.updates = int(checkpoint.get("extra", {}).get("updates", 0))
        under_way = checkpoint.get("under_way", {})
        self._schedule.early = under_way.get("early", self._schedule.early)
        self.vqgan.codebook.chosen = under_way.get("chosen")
        self.vqgan.codebook.gather_again(under_way.get("gathered", []))


def check_sizes(model: VQGANConfig, config: VQGANTrainConfig, lpips: LPIPS | None) -> None:
    """What can't be trained is refused before anything is built."""
    if config.perceptual_weight == 0:
        return
    if lpips is None:
        raise ValueError("perceptual_weight needs an LPIPS with its weights")
    if model.resolution < SMALLEST_SIDE or model.image_channels not in (1, 3):
        raise UserError(
            f"--perceptual_weight compares pictures of at least 16 x 16 with 1 or 3 channels, got --resolution "
            f"{model.resolution} --image_channels {model.image_channels}: leave it at 0, or change these"
        )
