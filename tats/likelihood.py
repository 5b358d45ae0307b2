"""`tats evaluate --nll`: how well a transformer foresees the codes of videos that it has not seen.

Every clip of the split is judged once, at fixed windows, by one pass of training; with --nll_shuffled a second time,
behind the condition of another clip. What the true condition is worth is the difference of the two. Bits are those of
the distribution that codes are drawn from: over code ids alone, before top-k, top-p and temperature.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from tats import checkpoint
from tats.data.loader import Clips, Failure, collate, leave_signals
from tats.data.module import VideoData
from tats.evaluate_flags import EvaluateConfig
from tats.evaluate_sides import join
from tats.flags import UserError
from tats.gpt.condition import empty_condition
from tats.gpt.course import check_scale
from tats.gpt.model import GPT
from tats.gpt.objective import new_codes, predict
from tats.gpt.train import GPTTraining
from tats.gpt.train_condition import opened
from tats.gpt.train_config import GPTTrainConfig
from tats.metrics.processes import World
from tats.metrics.usage import Likelihood
from tats.output import versions
from tats.vqgan.model import VQGAN

MOST_WORDS = 200  # of captions, the most common ones, that get a line of their own


@dataclass
class Tally:
    """Likelihoods of all clips, and of those of each group; `loss`: the sum of what training would call val/loss."""

    whole: Likelihood
    groups: dict[tuple[str, str], Likelihood]
    loss: float = 0.0

    @classmethod
    def of(cls, dimensions: int, groups: Iterable[tuple[str, str]]) -> "Tally":
        """Nothing judged yet. dimensions: of the pixels that the judged codes of one clip stand for."""
        return cls(Likelihood(dimensions), {group: Likelihood(dimensions) for group in groups})

    def add(self, logits: Tensor, codes: Tensor, code_offset: int, groups: Iterable[tuple[str, str]]) -> None:
        """Take in one clip: logits [n, V] over the whole vocabulary for its codes int64 [n]."""
        one = Likelihood(self.whole.dimensions)
        one.add(logits[None, :, code_offset:], codes[None])
        self.loss += float(cross_entropy(logits.double(), codes + code_offset))
        for each in (self.whole, *(self.groups[group] for group in groups)):
            each.include(one)

    def scores(self, world: World) -> dict[str, Any]:
        """Plain values of all processes together: those of `Likelihood.scores`, and the same by group."""
        each = [self.whole, *self.groups.values()]
        sums = world.sum(
            torch.tensor([[one.nats, one.codes, one.videos] for one in each], dtype=torch.float64)
        ).tolist()
        loss = world.sum(torch.tensor(self.loss, dtype=torch.float64)).item()
        found = [Likelihood(one.dimensions, int(n), int(codes), nats) for one, (nats, codes, n) in zip(each, sums)]
        by: dict[str, dict[str, Any]] = {}
        for (kind, name), one in zip(self.groups, found[1:]):
            if one.videos:
                by.setdefault(kind, {})[name] = one.scores()
        return {**found[0].scores(), "loss": loss / max(found[0].videos, 1), "by": by}


@dataclass(frozen=True)
class Groups:
    """What clips are told apart by: their classes, and words of the names of these or of captions."""

    labels: Sequence[str] = ()
    words: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, data: VideoData, split: str, by_text: bool) -> "Groups":
        """Words count that some clips have and others have not."""
        names = data.label_names if data.n_classes > 1 else []
        counted = [Counter(word for name in names for word in words_of(name))]
        totals = [len(names)]
        if by_text:
            captions = [text for _, text in data.captions(split)]
            counted.append(Counter(word for text in captions for word in words_of(text)))
            totals.append(len(captions))
        found = set()
        for counts, total in zip(counted, totals):
            common = [word for word, n in counts.most_common() if 1 < n < total]
            found |= set(common[:MOST_WORDS])
        return cls(names, frozenset(found))

    @property
    def all(self) -> list[tuple[str, str]]:
        """Kind and name of every group."""
        return [("label", name) for name in self.labels] + [("word", word) for word in sorted(self.words)]

    def of_clip(self, label: int | None, text: str | None) -> list[tuple[str, str]]:
        """The groups that a clip belongs to."""
        name = self.labels[label] if label is not None and self.labels else ""
        words = (words_of(name) | words_of(text or "")) & self.words
        return ([("label", name)] if name else []) + [("word", word) for word in sorted(words)]


def words_of(text: str) -> set[str]:
    """The words of a caption or of the name of a class, in lower case."""
    return set(re.findall(r"[^\W_]+", text.lower()))


@dataclass
class Judged:
    """What foresees the codes of which clips."""

    module: GPTTraining
    data: VideoData
    clips: Clips
    groups: Groups
    scale: float
    device: str

    @property
    def gpt(self) -> GPT:
        """The transformer."""
        return self.module.gpt

    def logits(self, batch: dict[str, Any], cond: Tensor, codes: Tensor) -> Tensor:
        """Guided logits for every code of a batch: [B, t*h*w, V]."""
        places = self.module.places(batch, codes)
        logits, _ = predict(self.gpt, cond, codes, places=places)
        if self.scale != 1:
            empty, _ = predict(
                self.gpt, empty_condition(self.gpt.config, len(codes), codes.device), codes, places=places
            )
            logits = empty + self.scale * (logits - empty)
        return logits

    def batches(self, places: Sequence[int], size: int, workers: int) -> Iterator[dict[str, Any]]:
        """The clips with these numbers, on the device of the model."""
        wanted = [[(0, number) for number in places[at : at + size]] for at in range(0, len(places), size)]
        loader = DataLoader(
            self.clips,
            batch_sampler=wanted,  # of places, not of integers
            num_workers=min(workers, len(wanted)),
            collate_fn=collate,
            worker_init_fn=leave_signals,
        )
        for batch in loader:
            if isinstance(batch, Failure):
                raise UserError(batch.message)
            yield {name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def nll(config: EvaluateConfig) -> dict[str, Any] | None:
    """What the flags ask for, as plain values; None in processes that only helped.

    Raises:
        UserError: data or checkpoints are missing, or do not belong together.
    """
    world, device = join(config.draw.device)
    gpt, vqgan = checkpoint.load_pair(
        str(config.gpt_ckpt), str(config.vqgan_ckpt), device, config.likelihood.stft_vqgan_ckpt
    )
    split = config.choice.split or "test"
    if split not in ("train", "test"):
        raise UserError(f"--nll judges one split, train or test; got --split {split}")
    judged = open_judged(config, gpt, vqgan, split, device)
    count = min(len(judged.clips), config.choice.n_real or config.choice.limit or len(judged.clips))
    if config.likelihood.nll_shuffled and (count < 2 or not gpt.config.keys):
        raise UserError("--nll_shuffled compares the conditions of clips: it needs two clips or more, and a condition")
    n_judged = len(range(prod(gpt.config.latent_shape))[new_codes(gpt, prod(gpt.config.latent_shape))])
    dimensions = n_judged * prod(vqgan.config.downsample) * vqgan.config.image_channels
    tallies = [Tally.of(dimensions, judged.groups.all) for _ in range(1 + config.likelihood.nll_shuffled)]
    failure, same = None, 0
    try:
        same = judge(judged, tallies, list(world.share(range(count))), others(count, config.seed), config)
    except UserError as error:
        failure = str(error)
    world.agree(failure)
    result = {"score": "nll", **tallies[0].scores(world)}
    if config.likelihood.nll_shuffled:
        share = world.sum(torch.tensor(float(same))).item() / count
        result["shuffled"] = {**tallies[1].scores(world), "same_condition": share}
    kept = {"split": split, "cfg_scale": judged.scale, "seed": config.seed, "notes": notes(result, gpt)}
    prints = {"gpt": checkpoint.fingerprint(gpt), "vqgan": checkpoint.fingerprint(vqgan)}
    paths = {"gpt": config.gpt_ckpt, "vqgan": config.vqgan_ckpt, "data_path": config.data.data_path}
    result |= {"line": line(result), **kept, **paths, "fingerprints": prints, "versions": versions()}
    return result if world.rank == 0 else None


def judge(
    judged: Judged, tallies: Sequence[Tally], places: Sequence[int], other: Sequence[int], config: EvaluateConfig
) -> int:
    """Judge the clips with these numbers, the second time behind the conditions of the clips `other` of each; returns
    how many of those are the same as the clip's own."""
    from tqdm import tqdm

    gpt, size, workers, same = judged.gpt, config.data.batch_size, config.data.num_workers, 0
    new = new_codes(gpt, prod(gpt.config.latent_shape))
    strangers = judged.batches([other[place] for place in places], size, workers) if len(tallies) > 1 else None
    with torch.inference_mode(), tqdm(total=len(places), desc="clips", unit="clip", mininterval=0.5) as bar:
        for batch in judged.batches(places, size, workers):
            codes = judged.module.codes(batch)  # [B, t, h, w]
            if tuple(codes.shape[1:]) != tuple(gpt.config.latent_shape):
                raise UserError(
                    f"--data_path gives clips of {'x'.join(map(str, codes.shape[1:]))} codes, this transformer was "
                    f"trained on {'x'.join(map(str, gpt.config.latent_shape))}: see --sequence_length, --resolution"
                )
            conds = [judged.module.condition(batch)]
            if strangers is not None:
                conds.append(judged.module.condition(next(strangers)))
                same += int((conds[0] == conds[1]).all(1).sum())
            labels = batch["label"].tolist() if "label" in batch else [None] * len(codes)
            texts = batch["text"] if isinstance(batch.get("text"), list) else [None] * len(codes)
            groups = [judged.groups.of_clip(label, text) for label, text in zip(labels, texts)]
            for tally, cond in zip(tallies, conds):
                logits = judged.logits(batch, cond, codes)[:, new]  # [B, n, V]
                for row, own, found in zip(logits, codes.flatten(1)[:, new], groups):
                    tally.add(row, own, gpt.config.code_offset, found)
            bar.update(len(codes))
    return same


def open_judged(config: EvaluateConfig, gpt: GPT, vqgan: VQGAN, split: str, device: str) -> Judged:
    """The transformer with what makes its codes and conditions, and the clips of a split at fixed windows."""
    flags, text = config.likelihood, gpt.config.part("text")
    latents = (gpt.config.latent_shape[0] - 1) * gpt.config.stride + 1
    every = config.data.sample_every_n_frames or vqgan.config.sample_every_n_frames
    frames = latents * vqgan.config.downsample[0]
    own: dict[str, Any] = {
        "sample_every_n_frames": every,
        "sequence_length": config.data.sequence_length or frames * (1 if config.data.image_folder else every),
        "resolution": config.data.resolution or gpt.config.latent_shape[1] * vqgan.config.downsample[1],
        "latent_frames": config.data.latent_frames or (latents if config.data.vtokens else None),
        "spatial_length": gpt.config.latent_shape[1],
    }
    training = GPTTrainConfig(
        stft_vqvae=flags.stft_vqgan_ckpt,
        smap_vqvae=flags.smap_vqgan_ckpt,
        init_from=config.gpt_ckpt,  # its byte pairs
        bpe_path=flags.bpe_path,
        text_len=text.n_cond if text else None,
        truncate_captions=flags.truncate_captions,
    )
    data, frozen, texts = opened(gpt.config, training, config.data.data(**own), config.seed)
    if config.data.vtokens:
        data.need_vqgan(checkpoint.fingerprint(vqgan))
    module = GPTTraining(
        gpt,
        GPTTrainConfig(),
        0.0,
        vqgan=None if config.data.vtokens else vqgan,
        sound_vqgan=frozen.sound,
        smap_vqgan=frozen.smap,
        text_tokens=texts,
    ).to(device)
    module.setup("test")
    module.eval()
    clips = Clips(data.source(split), config.seed, train=False)
    _check_classes(gpt, data)
    scale = check_scale(gpt.config, config.draw.cfg_scale)
    return Judged(module, data, clips, Groups.of(data, split, text is not None), scale, device)


def _check_classes(gpt: GPT, data: VideoData) -> None:
    """The classes of the data must be those of the transformer, in the same order."""
    if "label" not in gpt.config.keys:
        return
    known, found = gpt.config.label_names, data.label_names
    if len(found) != gpt.config.n_classes or (known is not None and list(known) != list(found)):
        told = ", ".join(found[:12]) or "none"
        raise UserError(
            f"--data_path has the classes {told}, this transformer was trained on {gpt.config.n_classes}"
            + (f": {', '.join(known[:12])}" if known else "")
        )


def others(count: int, seed: int) -> list[int]:
    """For each of `count` clips another one, whose condition it gets: every clip gives its condition once."""
    order = np.random.default_rng([seed, count]).permutation(count)
    found = np.empty(count, np.int64)
    found[order] = np.roll(order, 1)
    return found.tolist()


def line(result: dict[str, Any]) -> str:
    """The result in a line."""
    told = (
        f"{result['bits_per_code']:.4f} bits per code, {result['bits_per_dimension']:.5f} per pixel dimension "
        f"({result['n_videos']} clips, {result['n_codes_judged']} codes)"
    )
    if "shuffled" in result:
        told += f"; behind the conditions of other clips {result['shuffled']['bits_per_code']:.4f} bits per code"
    return told


def notes(result: dict[str, Any], gpt: GPT) -> list[str]:
    """What must be known to read the result."""
    found = []
    if gpt.config.n_unmasked:
        found.append("a model that fills in frames: the codes between the first frame and the last one are judged")
    if "shuffled" in result and result["shuffled"]["same_condition"]:
        share = 100 * result["shuffled"]["same_condition"]
        found.append(f"{share:.1f} % of the clips got a condition from another clip that is the same as their own")
    return found
