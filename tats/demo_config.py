"""What `make demo` runs: its sizes, and its steps as the commands that anybody can type. No torch here."""

import sys
from dataclasses import dataclass

from tats.flags import UserError, arg

CLASSES = 12
FRAMES, RESOLUTION = 16, 32  # of a clip
CHECKPOINT = "/version_0/checkpoints/last.ckpt"  # of a run
LONG = ("red_circle", "green_square", "blue_triangle", "yellow_circle")  # classes of the long videos, one each
FEATURES = "features.pt"  # the feature network, below --out
DRAWN = {"top_k": 0, "top_p": 0.3, "top_p_init": 0.98}  # how codes are drawn: only the first latent frame decides much
EVALUATED = 240  # clips that are sampled and judged, and test clips beside them


@dataclass(frozen=True)
class DemoConfig:
    """Trains both models on the embedded dataset, samples from them, judges the samples and writes a page."""

    size: str = arg("full", "full: a quarter of an hour on 2 cores; tiny: a try of at most 3 minutes", ["full", "tiny"])
    fresh: bool = arg(False, "start over: what earlier calls left in --out is removed first")
    out: str = arg("runs/demo", "folder of everything: data, both runs, samples, the page index.html")

    def __post_init__(self) -> None:
        if self.out.strip() in ("", "/", ".", ".."):
            raise UserError(f"--out takes a folder of its own, such as runs/demo, got '{self.out}'")


@dataclass(frozen=True)
class Size:
    """The numbers in which the demos differ. Steps are optimizer steps."""

    n_train: int
    n_test: int
    frames: int
    vqgan_steps: int
    vqgan_start: int  # steps before the codebook starts
    gpt_steps: int
    n_sample: int
    long_frames: int
    feature_steps: int  # of the feature network, and the clips that it learns from
    feature_clips: int
    model: dict[str, int]  # of the transformer


SIZES = {
    "full": Size(
        n_train=3600,
        n_test=EVALUATED,
        frames=24,
        vqgan_steps=3200,
        vqgan_start=640,
        gpt_steps=2700,
        n_sample=EVALUATED,
        long_frames=1024,
        feature_steps=180,
        feature_clips=720,
        model={"n_layer": 4, "n_head": 4, "n_embd": 128},
    ),
    "tiny": Size(
        n_train=120,
        n_test=24,
        frames=24,
        vqgan_steps=200,
        vqgan_start=60,
        gpt_steps=100,
        n_sample=24,
        long_frames=96,
        feature_steps=30,
        feature_clips=120,
        model={"n_layer": 2, "n_head": 2, "n_embd": 64},
    ),
}


@dataclass(frozen=True)
class Step:
    """One command of the demo: its short name, what it does in words, what it makes, its arguments after `python`."""

    name: str
    title: str
    makes: str  # a folder or file below --out
    args: tuple[str, ...]

    def command(self) -> list[str]:
        """The arguments of the process that runs it."""
        return [sys.executable, *self.args]

    def text(self) -> str:
        """The command as one types it."""
        return " ".join(["python", *self.args])


def steps(config: DemoConfig) -> list[Step]:
    """The commands of the demo, in their order."""
    size, out = SIZES[config.size], config.out
    data, vqgan, gpt = f"{out}/data", f"{out}/vqgan", f"{out}/gpt"
    vqgan_ckpt, gpt_ckpt = vqgan + CHECKPOINT, gpt + CHECKPOINT
    log = max(size.vqgan_steps // 200, 1)
    return [
        Step("data", "write the dataset", "data", ("-m", "tats", "shapes", *_flags(
            out=data, n_train=size.n_train, n_test=size.n_test, frames=size.frames, resolution=RESOLUTION))),
        Step("vqgan", "train the VQGAN", "vqgan", ("train_vqgan.py", *_flags(
            data_path=data, default_root_dir=vqgan, resolution=RESOLUTION, sequence_length=8, batch_size=8,
            num_workers=0, keep_gb=1, n_hiddens=4, embedding_dim=16, n_codes=1024,
            downsample=(4, 4, 4), norm_type="batch", restart_thres=0.1, rate_weight=0.5, image_gan_weight=0,
            video_gan_weight=0, l1_weight=4, mse_weight=30, flicker_weight=400, lr=0.012,
            adam_betas=(0.9, 0.99), lr_schedule="cosine", warmup_steps=50,
            vq_start_step=size.vqgan_start, codebook_start="kmeans", gradient_clip_val=1, precision="bf16",
            channels_last=True, max_steps=size.vqgan_steps, log_images_every=0, log_videos_every=0,
            log_every_n_steps=log, limit_val_batches=4))),
        Step("codes", "turn the clips into codes", "codes", ("-m", "tats", "tokenize", *_flags(
            vqgan_ckpt=vqgan_ckpt, data_path=data, out=f"{out}/codes", resolution=RESOLUTION, sequence_length=FRAMES,
            window_stride=4, batch_size=64, num_workers=0, keep_gb=1))),
        Step("gpt", "train the transformer", "gpt", ("train_transformer.py", *_flags(
            vqvae=vqgan_ckpt, vtokens=True, data_path=f"{out}/codes", default_root_dir=gpt, **size.model, block_size=0,
            batch_size=16, num_workers=0, lr=0.002, lr_schedule="cosine", warmup_steps=100, optimizer="muon",
            start_codes="codebook", start_positions="grid", gradient_clip_val=1, precision="bf16",
            max_steps=size.gpt_steps, log_every_n_steps=max(size.gpt_steps // 200, 1), limit_val_batches=4))),
        Step("samples", "sample clips of every class", "samples", ("sample_short.py", *_flags(
            gpt_ckpt=gpt_ckpt, vqgan_ckpt=vqgan_ckpt, class_cond=True, save=f"{out}/samples", dataset="shapes",
            n_sample=size.n_sample, batch_size=60, seed=0, **DRAWN, save_arrays=True))),
        Step("long", "sample long videos", "long", ("sample_long.py", *_flags(
            gpt_ckpt=gpt_ckpt, vqgan_ckpt=vqgan_ckpt, class_cond=True, label=LONG, save=f"{out}/long", dataset="shapes",
            n_sample=len(LONG), batch_size=len(LONG), frames=size.long_frames, temporal_sample_pos=2, seed=0, **DRAWN,
            frames_init=1))),
        Step("features", "train the feature network that judges", FEATURES, ("-m", "tats", "evaluate", *_flags(
            train_features=True, data_path=data, features_ckpt=f"{out}/{FEATURES}", resolution=RESOLUTION,
            sequence_length=FRAMES, num_workers=0, keep_gb=1, feature_steps=size.feature_steps,
            feature_clips=size.feature_clips))),
    ]  # fmt: skip


def _flags(**values: object) -> list[str]:
    """Flags as they are typed; True is a flag alone, a tuple several values."""
    found: list[str] = []
    for name, value in values.items():
        found.append(f"--{name}")
        if isinstance(value, tuple):
            found += [str(each) for each in value]
        elif value is not True:
            found.append(str(value))
    return found
