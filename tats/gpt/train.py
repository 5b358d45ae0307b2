"""Training the transformer: codes from the frozen VQGAN or from files, the loss, the optimizer, what is logged."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tats.callbacks import over_processes
from tats.compiling import compile_in_place
from tats.flags import UserError, to_dict
from tats.gpt.condition import GIVEN, condition
from tats.gpt.disturbed import at_random, own_draws
from tats.gpt.dropout import leave_out
from tats.gpt.model import GPT
from tats.gpt.muon import MuonAdamW, muon_groups
from tats.gpt.objective import crop_places, learn, new_codes, window
from tats.gpt.train_config import GPTTrainConfig
from tats.metrics.processes import current
from tats.schedule import rate_factor
from tats.video import with_video

BETAS = (0.9, 0.95)


class Tokenizer(Protocol):
    """What turns videos into codes: a VQGAN."""

    @property
    def n_codes(self) -> int:
        """Size of the codebook."""

    def encode(self, video: Tensor) -> Tensor:
        """float [B, C, T, H, W] -> int64 [B, t, h, w]"""


def parameter_groups(gpt: nn.Module, weight_decay: float = 0.01) -> list[dict[str, Any]]:
    """AdamW's groups, as published: weights of linear layers decay, all else does not; each sorted by name."""
    decay = {f"{name}.weight" for name, module in gpt.named_modules() if isinstance(module, nn.Linear)}
    parameters = dict(sorted(gpt.named_parameters()))
    return [
        {"params": [p for name, p in parameters.items() if name in decay], "weight_decay": weight_decay},
        {"params": [p for name, p in parameters.items() if name not in decay], "weight_decay": 0.0},
    ]


class GPTTraining(pl.LightningModule):
    """Learns which code follows. Its state dict holds `gpt.*` and nothing else: the VQGANs stay frozen and outside.

    learning_rate: the one that is used (see `train_config.learning_rate` for the rule). vqgan: turns batches of videos
    into codes; None: batches hold codes. sound_vqgan, smap_vqgan: the same for sounds and semantic maps, where they are
    the condition. text_tokens: turns a list of texts into ids [B, n]. extra: plain values stored beside the model in
    checkpoints. seed: of the codes that stand in for others (`--pkeep`, `--own_codes`).
    """

    def __init__(
        self,
        gpt: GPT,
        config: GPTTrainConfig,
        learning_rate: float,
        *,
        vqgan: Tokenizer | None = None,
        sound_vqgan: Tokenizer | None = None,
        smap_vqgan: Tokenizer | None = None,
        text_tokens: Callable[[list[str]], Tensor] | None = None,
        extra: Mapping[str, Any] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.gpt, self.config, self.learning_rate, self.seed = gpt, config, learning_rate, seed
        # a dict, so that none of them is stored with the transformer
        self.frozen = {"video": vqgan, "stft": sound_vqgan, "smap": smap_vqgan}
        self.text_tokens = text_tokens
        self.extra = dict(extra or {})
        gpt.checkpointing = config.activation_checkpointing
        if config.compile:
            compile_in_place(gpt.blocks)
        self.rates: list[float] = []  # of the optimizer's groups, before the schedule
        self.total_steps: float = math.inf
        self.used: Tensor | None = None  # how often each code occurred since the last line of the log

    @property
    def codes_per_clip(self) -> int:
        """Codes that one clip has: what the speed in codes per second is reckoned from."""
        return math.prod(self.gpt.config.latent_shape)

    # ---- batches -> codes and condition

    def codes(self, batch: Mapping[str, Tensor]) -> Tensor:
        """int64 [B, t, h, w], of videos or as they are; every `stride`-th latent frame."""
        video = batch["video"]
        codes = self._encode("video", video) if video.is_floating_point() else video
        return codes[:, :: self.gpt.config.stride]

    def condition(self, batch: Mapping[str, Any]) -> Tensor:
        """int64 [B, n_cond]: what the batch holds for the condition of this model; in training some clips lose it."""
        config = self.config
        given = self.given(batch)
        cond = condition(self.gpt.config, len(batch["video"]), **given, device=batch["video"].device)
        if not (self.training and self.gpt.config.empty):
            return cond
        clips = batch["index"].tolist() if "index" in batch else range(len(cond))
        shares = config.cond_dropout, config.cond_dropout_parts
        return leave_out(self.gpt.config, cond, clips, self.seed, self.global_step, *shares)

    def given(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What the batch holds for the condition, as samplers take it: by `label`, `text`, `sound`, `smap`."""
        return {GIVEN[key]: self._given(key, batch) for key in self.gpt.config.keys}

    def _given(self, key: str, batch: Mapping[str, Any]) -> Tensor:
        """What a batch holds for one part of the condition: class ids [B], ids of texts [B, n], codes [B, t, h, w]."""
        names = {"stft": ("stft_codes", "stft"), "smap": ("smap_codes", "video_smap")}.get(key, (key,))
        given = next((batch[name] for name in names if name in batch), None)
        if given is None:
            raise UserError(f"--cond_stage_key {key}: the data has no {key}, only {', '.join(sorted(batch))}")
        if isinstance(given, list | tuple):  # texts
            if self.text_tokens is None:
                raise ValueError("the batch holds texts, but nothing was given to turn them into ids")
            return self.text_tokens(list(given))
        return self._encode(key, given) if key in self.frozen and given.is_floating_point() else given

    def _encode(self, which: str, video: Tensor) -> Tensor:
        """Codes by a frozen VQGAN, in evaluation mode and full precision."""
        tokenizer = self.frozen[which]
        if tokenizer is None:
            raise ValueError(f"the batch holds {which} as numbers, but no VQGAN was given to turn it into codes")
        with torch.no_grad(), torch.autocast(video.device.type, enabled=False):
            return tokenizer.encode(video.float())

    def setup(self, stage: str) -> None:
        """Put the frozen VQGANs where the transformer is."""
        for name, tokenizer in self.frozen.items():
            if isinstance(tokenizer, nn.Module):
                self.frozen[name] = tokenizer.to(self.device).eval().requires_grad_(False)

    # ---- the loss

    def step(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """loss [], acc1 [1], acc5 [1] (percent), codes [B, t, h, w] of one batch."""
        codes, cond = self.codes(batch), self.condition(batch)
        places = self.places(batch, codes)
        keep, random = self.disturbed(batch, cond, codes, places) if self.training else (None, None)
        shown = window(self.gpt, cond, codes, places=places, keep=keep, random=random)
        counted = new_codes(self.gpt, shown.target.shape[1]) if self.config.loss_on == "new" else slice(None)
        loss, (acc1, acc5) = learn(self.gpt, shown, counted)
        return loss, acc1, acc5, codes

    def places(self, batch: Mapping[str, Tensor], codes: Tensor) -> Tensor | None:
        """Where codes [B, t, h, w] lie in the table of places, int64 [B or 1, t*h*w, 3]; None for models without."""
        if self.gpt.config.places_shape is None:
            return None
        box = batch.get("cbox")
        if box is None:
            box = torch.tensor([[0, codes.shape[2], 0, codes.shape[3]]], device=codes.device)
        return crop_places(codes.shape[1:], box)

    def disturbed(
        self, batch: Mapping[str, Tensor], cond: Tensor, codes: Tensor, places: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Which codes the model sees as they are, and ids for the others: bool and int64, each [B, t*h*w]; None: all.

        See `tats.gpt.disturbed`.
        """
        config, gpt, keep, ids = self.config, self.gpt, None, None
        clips = batch["index"].tolist() if "index" in batch else list(range(len(codes)))
        if config.own_codes:
            keep, ids = own_draws(gpt, config.own_codes, cond, codes, clips, self.seed, self.global_step, places)
        if config.pkeep < 1:
            stays, others = at_random(gpt, config.pkeep, clips, codes[0].numel(), self.seed, self.global_step)
            stays, others = stays.to(codes.device), others.to(codes.device)
            ids = others if ids is None else torch.where(stays, ids, others)
            keep = stays if keep is None else keep & stays
        return keep, ids

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Prepared frames become video here, on the device."""
        return with_video(batch)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch; logs it with accuracies, and counts the codes that occur."""
        value, acc1, acc5, codes = self.step(batch)
        shown = over_processes(self.trainer, {"train/acc1": acc1, "train/acc5": acc5, "train/loss": value})
        self.log("train/loss", shown.pop("train/loss"), prog_bar=True, on_step=True)
        self.log_dict(shown, on_step=True)
        counts = torch.bincount(codes.flatten(), minlength=self.gpt.config.n_codes)
        self.used = counts if self.used is None else self.used.to(counts) + counts
        return value

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Logs loss and accuracies on clips that are not trained on."""
        value, acc1, acc5, codes = self.step(batch)
        self.log("val/loss", value, prog_bar=True, sync_dist=True, batch_size=len(codes))
        self.log_dict({"val/acc1": acc1, "val/acc5": acc5}, sync_dist=True, batch_size=len(codes))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Now and then: the share of the codebook in use, and its perplexity."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.used is None or (batch_idx + 1) % max(every, 1):
            return
        used = current().sum(self.used)
        shares = used.double() / used.sum()
        self.log("train/codes_used", (used > 0).float().mean())
        self.log("train/code_perplexity", torch.exp(-(shares * torch.log(shares + 1e-10)).sum()).float())
        self.used = None

    # ---- optimizer and checkpoint

    def configure_model(self) -> None:
        """With --strategy fsdp, every process keeps its rows of the weights only."""
        if self.device_mesh is None:
            return
        from tats.sharded import shard

        if self.config.optimizer == "muon":
            raise UserError("--optimizer muon needs whole matrices, which --strategy fsdp does not have: take adamw")
        shard(self.gpt, self.gpt.blocks, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with the published groups, or Muon for the matrices of the blocks; the learning rate constant, or
        warmed up and lowered as the flags say."""
        groups = parameter_groups(self.gpt, self.config.weight_decay)
        optimizer: torch.optim.Optimizer
        if self.config.optimizer == "muon":
            matrices = [p for p in self.gpt.blocks.parameters() if p.ndim == 2]
            optimizer = MuonAdamW(muon_groups(groups, matrices, self.config.muon_lr), self.learning_rate, BETAS)
        else:
            optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=BETAS)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        if self.config.lr_schedule == "cosine":
            self.total_steps = self.trainer.estimated_stepping_batches
            if math.isinf(self.total_steps):
                raise UserError("--lr_schedule cosine must know where it ends: give --max_steps or --max_epochs")
        return optimizer

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The learning rates of this step: from the flags and the step alone, whatever a checkpoint held."""
        warmup = self.config.warmup_steps
        factor = rate_factor(self.global_step, self.config.lr_schedule, warmup, self.total_steps, falls_from=warmup)
        for rate, group in zip(self.rates, optimizer.param_groups, strict=True):
            group["lr"] = rate * factor

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What a loader needs beside the weights, as plain values."""
        checkpoint["kind"] = "gpt"
        checkpoint["config"] = to_dict(self.gpt.config)
        checkpoint["extra"] = self.extra
        checkpoint["used"] = None if self.used is None else current().sum(self.used)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What was counted since the last line of the log counts on, in one process for all.

        Raises:
            UserError: the run was begun with other byte pairs, so that its ids mean other words.
        """
        if checkpoint.get("config", {}).get("bpe", self.gpt.config.bpe) != self.gpt.config.bpe:
            raise UserError(
                "the run was begun with other byte pairs of texts: its captions have changed, or --bpe_path has. Give "
                "the captions or the --bpe_path of before, or begin a new run (--init_from takes its weights)"
            )
        self.used = checkpoint.get("used") if current().rank == 0 else None
