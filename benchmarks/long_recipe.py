"""The recipe for long videos of the embedded dataset: its commands, and which of them run side by side.

What makes a motion last over a thousand frames, and is different from the demo: the transformer is trained on windows
out of whole films, encoded in one piece. Codes at the ends of a clip differ from those of the same frames inside a
film, since the encoder sees the padding there; a sliding window only ever stands inside. And in a share of the windows
the model sees its own draws, as it will when it samples: a speed that is a little off goes back to a true one.

All three transformers start from the weights of the demo's.
"""

from dataclasses import dataclass

from benchmarks.lanes import Step
from tats.demo_config import CHECKPOINT
from tats.flags import UserError, arg

FRAMES = 1024  # of a long video
VIDEOS = 60  # seeds 0 to 59, five of every class


@dataclass(frozen=True)
class LongConfig:
    """Trains a sliding-window transformer and a coarse/between pair for long videos of the embedded dataset, samples
    from both, judges the videos and stores the numbers as tables."""

    size: str = arg(
        "full", "full: at most 25 minutes of training and sampling on 2 cores; tiny: a try", ["full", "tiny"]
    )
    vqgan: str = arg(f"runs/demo/vqgan{CHECKPOINT}", "the VQGAN, as `make demo` leaves it")
    gpt: str = arg(f"runs/demo/gpt{CHECKPOINT}", "the transformer whose weights all three start from, likewise")
    out: str = arg("runs/long", "folder of everything: films, codes, runs, samples")
    stored: bool = arg(False, "run nothing: judge the videos that are there and store the numbers")
    only_print: bool = arg(False, "print the commands and stop")

    def __post_init__(self) -> None:
        if self.out.strip() in ("", "/", ".", ".."):
            raise UserError(f"--out takes a folder of its own, such as runs/long, got '{self.out}'")


@dataclass(frozen=True)
class Size:
    """The numbers in which the sizes differ. Steps are optimizer steps."""

    films: int
    film_frames: int
    long_steps: int
    coarse_steps: int
    between_steps: int
    frames: int
    videos: int


SIZES = {
    "full": Size(1500, 128, 3000, 1900, 1100, FRAMES, VIDEOS),
    "tiny": Size(24, 64, 20, 20, 20, 64, 12),
}
TRAIN = """--block_size 0 --batch_size 16 --num_workers 0 --lr 0.002 --lr_schedule cosine --warmup_steps 100
    --optimizer muon --gradient_clip_val 1 --precision bf16 --limit_val_batches 4"""
DRAW = "--class_cond --seed 0 --top_k 0 --top_p_init 0.98 --frames_init 1 --save_arrays"
CONTEXTS = (1, 2, 3)  # latent frames that the sliding window sees
TOP_P = 0.2
COARSE_CONTEXT = 3
OWN_CODES = 0.3  # share of windows that go on from the model's own draws
STEP = 3  # latent frames between coarse ones: 256 latent frames are 85 times 3 and one


def stages(config: LongConfig) -> list[list[list[Step]]]:
    """What runs when: stages one after the other, the lanes of a stage side by side, the steps of a lane in turn. The
    last stage is there for the comparison alone."""
    size, out, vqgan = SIZES[config.size], config.out, config.vqgan
    codes = f"{out}/codes"
    train = (
        f"python train_transformer.py --vtokens --data_path {codes} --vqvae {vqgan} --init_from {config.gpt} {TRAIN}"
    )
    own = f"--own_codes {OWN_CODES}"
    last = {name: f"{out}/{name}{CHECKPOINT}" for name in ("sliding", "coarse", "between")}
    sample = f"--vqgan_ckpt {vqgan} --frames {size.frames} --n_sample {size.videos} --batch_size {size.videos} {DRAW}"
    prepare = [
        Step("data", "write the films", f"""tats shapes --out {out}/data --n_train {size.films} --n_test 24
            --frames {size.film_frames} --resolution 32 --seed 1 --no_sound"""),
        Step("codes", "turn whole films into codes", f"""tats tokenize --vqgan_ckpt {vqgan} --data_path {out}/data
            --out {codes} --resolution 32 --sequence_length {size.film_frames} --batch_size 8 --num_workers 0""",
            ("data",)),
    ]  # fmt: skip
    sliding = Step("sliding", "train the sliding-window transformer", f"""{train} --default_root_dir {out}/sliding
        --latent_frames 4 {own} --max_steps {size.long_steps} --log_every_n_steps 20""", ("codes",))  # fmt: skip
    pair = [
        Step("coarse", "train the coarse transformer", f"""{train} --default_root_dir {out}/coarse
            --latent_frames {4 * STEP} --sample_every_n_latent_frames {STEP} {own} --max_steps {size.coarse_steps}
            --log_every_n_steps 20""", ("codes",)),
        Step("between", "train the transformer between", f"""{train} --default_root_dir {out}/between
            --latent_frames {STEP + 1} --n_unmasked 64 --max_steps {size.between_steps} --log_every_n_steps 20""",
            ("codes",)),
    ]  # fmt: skip
    windows = [
        Step(f"context{n}", f"sample with a sliding window of context {n}", f"""python sample_long.py
            --gpt_ckpt {last["sliding"]} {sample} --top_p {TOP_P} --temporal_sample_pos {n} --dataset context{n}
            --save {out}/context{n}""", ("sliding",))
        for n in CONTEXTS
    ]  # fmt: skip
    levels = Step("hierarchical", "sample hierarchically", f"""python sample_hierarchical.py --ckpt1 {last["coarse"]}
        --ckpt2 {last["between"]} {sample.replace("--vqgan_ckpt", "--vqgan")} --top_k_init 0 --top_p {TOP_P}
        --temporal_sample_pos {COARSE_CONTEXT} --dataset hierarchical --save {out}/hierarchical""",
        ("coarse", "between"))  # fmt: skip
    return [[prepare], [[sliding], pair], [[windows[2]], [levels]], [[windows[0]], [windows[1]]]]


def listed(config: LongConfig) -> list[Step]:
    """All commands, in an order in which they can be typed."""
    return [step for stage in stages(config) for lane in stage for step in lane]
