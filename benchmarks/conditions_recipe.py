"""The recipes for conditions on the embedded dataset: sentences, sounds, classes with guidance; their commands, and
which of them run side by side.

All three stand on the VQGAN of the demo, and their transformers start from its transformer, which knows how things move
and learns what is said about them. A caption says in which direction the first step of a video goes, so clips
begin where videos begin: videos of 16 frames, each of them one clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.lanes import Stage, Step
from tats.demo_config import CHECKPOINT
from tats.flags import UserError, arg

RECIPES = ("text", "sound", "label")
FRAMES = 16  # of a clip
SCALES = {"text": (1.0, 1.5), "sound": (1.0, 2.0, 3.0), "label": (1.0, 1.5, 3.0)}  # of guidance
DROPPED = 0.1  # share of clips that lose their condition in training, so that it can guide


@dataclass(frozen=True)
class ConditionsConfig:
    """Trains transformers by sentence, by sound and by class on the embedded dataset, samples from them, judges what
    they make and stores the numbers as tables."""

    size: str = arg("full", "full: at most 25 minutes a recipe on 2 cores; tiny: a try", ["full", "tiny"])
    only: list[str] | None = arg(None, "some of the recipes (none: all)", [*RECIPES])
    vqgan: str = arg(f"runs/demo/vqgan{CHECKPOINT}", "the VQGAN, as `make demo` leaves it")
    gpt: str = arg(f"runs/demo/gpt{CHECKPOINT}", "the transformer that training starts from, likewise")
    out: str = arg("runs/conditions", "folder of everything: data, codes, runs, samples")
    stored: bool = arg(False, "run nothing: judge the videos that are there and store the numbers")
    only_print: bool = arg(False, "print the commands and stop")

    def __post_init__(self) -> None:
        if self.out.strip() in ("", "/", ".", ".."):
            raise UserError(f"--out takes a folder of its own, such as runs/conditions, got '{self.out}'")

    @property
    def recipes(self) -> list[str]:
        """Those that are asked for, in their order."""
        return [name for name in RECIPES if self.only is None or name in self.only]


@dataclass(frozen=True)
class Size:
    """The numbers in which the sizes differ. Steps are optimizer steps."""

    n_train: int
    videos: int
    text_steps: int
    sound_vqgan_steps: int
    sound_steps: int
    label_steps: int


SIZES = {
    "full": Size(12000, 240, 3500, 1200, 3600, 2400),
    "tiny": Size(96, 24, 20, 20, 20, 20),
}
TRAIN = """--block_size 0 --batch_size 16 --num_workers 0 --lr 0.002 --lr_schedule cosine --warmup_steps 100
    --optimizer muon --gradient_clip_val 1 --precision bf16 --limit_val_batches 4 --log_every_n_steps 20"""
SOUND_VQGAN = """--stft_data --sequence_length 8 --batch_size 8 --num_workers 0 --n_hiddens 4 --embedding_dim 8
    --n_codes 128 --downsample 1 32 16 --norm_type batch --restart_thres 0.1 --image_gan_weight 0
    --video_gan_weight 0 --l1_weight 4 --mse_weight 30 --lr 0.006 --adam_betas 0.9 0.99 --lr_schedule cosine
    --warmup_steps 50 --codebook_start kmeans --gradient_clip_val 1 --precision bf16
    --channels_last --log_images_every 0 --log_videos_every 0 --log_every_n_steps 10 --limit_val_batches 4"""
DRAW = {  # where everything is said, chance is left less
    "text": "--seed 0 --top_k 0 --top_p 0.3 --top_p_init 0.995",
    "sound": "--seed 0 --top_k 0 --top_p 0.3 --top_p_init 0.98",
    "label": "--seed 0 --top_k 0 --top_p 0.5 --top_p_init 0.98",
}


def shared(config: ConditionsConfig) -> list[Stage]:
    """What all recipes begin with."""
    size = SIZES[config.size]
    data = Step("data", "write the videos", f"""tats shapes --out {config.out}/data --n_train {size.n_train}
        --n_test {size.videos} --frames {FRAMES} --resolution 32 --seed 2""")  # fmt: skip
    return [[[data]]]


def codes(config: ConditionsConfig) -> Stage:
    """The codes of all clips, with their classes and captions."""
    return [[Step("codes", "turn the clips into codes", f"""tats tokenize --vqgan_ckpt {config.vqgan}
        --data_path {config.out}/data --out {config.out}/codes --resolution 32 --sequence_length {FRAMES}
        --batch_size 64 --num_workers 0""", ("data",))]]  # fmt: skip


def text(config: ConditionsConfig) -> list[Stage]:
    """By sentence: the transformer, and one that learns from the captions of other videos."""
    size, out = SIZES[config.size], config.out
    others = Step("others", "deal the captions out to other videos", f"""python benchmarks/conditions_others.py
        --codes {out}/codes --out {out}/others""", ("codes",))  # fmt: skip
    more = f"--text {out}/others/sentences.txt"
    own = [
        _train(config, "text", "train the transformer by sentence", "codes", "text", size.text_steps),
        *(_sample(config, "text", scale, more, ("others",)) for scale in SCALES["text"]),
        *_nll(config, "text", "codes"),
    ]
    control = [
        _train(config, "control", "train one by the sentences of other videos", "others", "text", size.text_steps),
        _sample(config, "control", 1.0, more, ("others",)),
    ]
    return [codes(config), [[others]], [own, control]]


def sound(config: ConditionsConfig) -> list[Stage]:
    """By sound: spectrograms, their VQGAN, the transformer."""
    size, out, steps = SIZES[config.size], config.out, SIZES[config.size].sound_vqgan_steps
    spectrograms = Step("sounds", "make spectrograms of the sound", f"""tats prepare --stft --data_path {out}/data
        --out {out}/sounds""", ("data",))  # fmt: skip
    vqgan = Step("sound_vqgan", "train the VQGAN of sounds", f"""python train_vqgan.py --data_path {out}/sounds
        --default_root_dir {out}/sound_vqgan {SOUND_VQGAN} --vq_start_step {steps // 4}
        --max_steps {steps}""",
        ("sounds",))  # fmt: skip
    stft = f"{out}/sound_vqgan{CHECKPOINT}"
    both = Step("sound_codes", "turn videos and sounds into codes", f"""tats tokenize --vqgan_ckpt {config.vqgan}
        --stft_data --stft_vqgan_ckpt {stft} --data_path {out}/sounds --out {out}/sound_codes --resolution 32
        --sequence_length {FRAMES} --batch_size 64 --num_workers 0""", ("sound_vqgan", "sounds"))  # fmt: skip
    train = _train(config, "sound", "train the transformer by sound", "sound_codes", "stft", size.sound_steps,
                   f"--stft_vqvae {stft}")  # fmt: skip
    samples = [
        Step(_name("sound", scale), f"sample from the sounds of the test videos with guidance {scale:g}",
             f"""python sample_audio_cond.py --gpt_ckpt {out}/sound{CHECKPOINT} --vqgan_ckpt {config.vqgan}
             --stft_vqgan_ckpt {stft} --data_path {out}/sounds --cfg_scale {scale:g} --dataset shapes
             --n_sample {size.videos} --batch_size 60 --save {out}/{_name("sound", scale)} {DRAW["sound"]}""",
             ("sound", "sounds"))
        for scale in SCALES["sound"]
    ]  # fmt: skip
    return [
        [[spectrograms, vqgan, both]],
        [[train]],
        [[samples[0], *_nll(config, "sound", "sound_codes", f"--stft_vqgan_ckpt {stft}")], samples[1:]],
    ]


def label(config: ConditionsConfig) -> list[Stage]:
    """By class, with several scales of guidance."""
    train = _train(config, "label", "train the transformer by class", "codes", "label", SIZES[config.size].label_steps)
    samples = [_sample(config, "label", scale, "--class_cond") for scale in SCALES["label"]]
    return [codes(config), [[train]], [samples[:2], [*samples[2:], *_nll(config, "label", "codes")]]]


def _name(model: str, scale: float) -> str:
    """The step that samples from a model with a scale of guidance."""
    return f"{model}_{scale:g}"


def _train(config: ConditionsConfig, name: str, title: str, folder: str, key: str, steps: int, more: str = "") -> Step:
    """Training of a transformer on a folder of codes."""
    return Step(name, title, f"""python train_transformer.py --vtokens --data_path {config.out}/{folder}
        --vqvae {config.vqgan} --init_from {config.gpt} --cond_stage_key {key} {more} --cond_dropout {DROPPED} {TRAIN}
        --default_root_dir {config.out}/{name} --max_steps {steps}""", (folder,))  # fmt: skip


def _sample(config: ConditionsConfig, model: str, scale: float, more: str, reads: tuple[str, ...] = ()) -> Step:
    """Sampling of clips by sentence or by class."""
    name, draw = _name(model, scale), DRAW.get(model, DRAW["text"])
    return Step(name, f"sample from the {model} model with guidance {scale:g}", f"""python sample_short.py
        --gpt_ckpt {config.out}/{model}{CHECKPOINT} --vqgan_ckpt {config.vqgan} {more} --cfg_scale {scale:g}
        --dataset shapes --n_sample {SIZES[config.size].videos} --batch_size 60 --save {config.out}/{name}
        --save_arrays {draw}""", (model, *reads))  # fmt: skip


def _nll(config: ConditionsConfig, model: str, folder: str, more: str = "") -> list[Step]:
    """Bits per code of the test clips under a model, behind their own condition and behind another's."""
    return [
        Step(f"{model}_nll", f"bits per code of the {model} model", f"""tats evaluate --nll --nll_shuffled
            --gpt_ckpt {config.out}/{model}{CHECKPOINT} --vqgan_ckpt {config.vqgan} {more} --vtokens
            --data_path {config.out}/{folder} --batch_size 60 --num_workers 0
            --out {config.out}/{model}_nll/nll.json""",
            (model, folder))
    ]  # fmt: skip


STAGES = {"text": text, "sound": sound, "label": label}


def stages(config: ConditionsConfig, recipe: str) -> list[Stage]:
    """What runs when for one recipe: stages one after the other, the lanes of a stage side by side, the steps of a lane
    in turn."""
    return [*shared(config), *STAGES[recipe](config)]


def listed(config: ConditionsConfig, recipes: Sequence[str]) -> list[Step]:
    """All commands of some recipes, each once, in an order in which they can be typed."""
    found = {}
    for recipe in recipes:
        found.update({step.name: step for stage in stages(config, recipe) for lane in stage for step in lane})
    return list(found.values())
