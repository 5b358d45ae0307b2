"""The commands of the published system, and what the scripts answer to help, wrong flags and wrong paths."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent

COMMANDS = {
    "vqgan": """train_vqgan.py --embedding_dim 256 --n_codes 16384 --n_hiddens 32 --downsample 4 8 8 --no_random_restart
        --gpus 8 --sync_batchnorm --batch_size 2 --num_workers 32 --accumulate_grad_batches 6
        --progress_bar_refresh_rate 500 --max_steps 2000000 --gradient_clip_val 1.0 --lr 3e-5
        --data_path DATA --default_root_dir RUN --resolution 128 --sequence_length 16
        --discriminator_iter_start 10000 --norm_type batch
        --perceptual_weight 4 --image_gan_weight 1 --video_gan_weight 1 --gan_feat_weight 4""",
    "transformer": """train_transformer.py --num_workers 32 --val_check_interval 0.5 --progress_bar_refresh_rate 500
        --gpus 8 --sync_batchnorm --batch_size 3 --unconditional --vqvae VQGAN --data_path DATA --default_root_dir RUN
        --vocab_size 16384 --block_size 1024 --n_layer 24 --n_head 16 --n_embd 1024
        --resolution 128 --sequence_length 16 --max_steps 2000000""",
    "interpolation": """train_transformer.py --num_workers 32 --val_check_interval 0.5 --progress_bar_refresh_rate 500
        --gpus 8 --sync_batchnorm --batch_size 3 --unconditional --vqvae VQGAN --data_path DATA --default_root_dir RUN
        --vocab_size 16384 --block_size 1280 --n_layer 24 --n_head 16 --n_embd 1024
        --resolution 128 --sequence_length 20 --spatial_length 128 --n_unmasked 256 --max_steps 2000000""",
    "coarse": """train_transformer.py --num_workers 32 --val_check_interval 0.5 --progress_bar_refresh_rate 500
        --gpus 8 --sync_batchnorm --batch_size 4 --unconditional --vqvae VQGAN --data_path DATA --default_root_dir RUN
        --vocab_size 16384 --block_size 1024 --n_layer 24 --n_head 16 --n_embd 1024 --resolution 128
        --sequence_length 64 --sample_every_n_latent_frames 4 --spatial_length 128 --max_steps 2000000""",
    "short": """sample_short.py --gpt_ckpt GPT --vqgan_ckpt VQGAN --class_cond --save OUT --data_path DATA
        --batch_size 16 --resolution 128 --top_k 2048 --top_p 0.8 --dataset NAME --compute_fvd --save_videos""",
    "long": """sample_long.py --gpt_ckpt GPT --vqgan_ckpt VQGAN --dataset ucf101 --class_cond
        --sample_length 16 --temporal_sample_pos 1 --batch_size 5 --n_sample 5 --save_videos""",
    "sound": """sample_audio_cond.py --gpt_ckpt GPT --vqgan_ckpt VQGAN --stft_vqgan_ckpt STFT --dataset drum
        --n_sample 10""",
    "hierarchical": """sample_hierarchical.py --ckpt1 AR --CKPT2 INTERPOLATION --vqgan VQGAN --dataset sky
        --top_k_init 2048 --top_p_init 0.8 --top_k 2048 --top_p 0.8 --temporal_sample_pos 1""",
    "folder of frames": "train_vqgan.py --image_folder --data_path DATA --sample_every_n_frames 4",
    "text": "train_transformer.py --cond_stage_key text --text_cond --vqvae VQGAN --data_path DATA",
    "label": "train_transformer.py --cond_stage_key label --vqvae VQGAN --data_path DATA --base_lr 4.5e-6",
    "stft": """train_transformer.py --cond_stage_key stft --stft_vqvae STFT --stft_data --vqvae VQGAN --data_path DATA
        --first_stage_key video --first_stage_vocab_size 16384""",
    "places": "train_transformer.py --vtokens --vtokens_pos --spatial_length 15 --vqvae VQGAN --data_path DATA",
    "diverse": """sample_hierarchical.py --ckpt1 AR --ckpt2 INTERPOLATION --vqgan VQGAN --dataset taichi --class_cond
        --top_k_init 16384 --top_p_init 0.99 --run 3 --save OUT --sample_length 64 --sample_resolution 16
        --n_sample 4 --batch_size 4 --compute_fvd --save_videos""",
    "unused": """train_vqgan.py --i3d_feat --smap_cond 0 --data_path DATA --disc_loss_type vanilla
        --padding_type reflect""",
    "trainer": """train_vqgan.py --data_path DATA --max_epochs 3 --precision 16 --num_nodes 2 --limit_val_batches 0.5
        --limit_train_batches 10 --log_every_n_steps 5 --fast_dev_run --check_val_every_n_epoch 2 --benchmark True
        --num_sanity_val_steps 0 --deterministic true --overfit_batches 2 --max_time 00:01:00:00 --profiler simple
        --resume_from_checkpoint PATH --terminate_on_nan True --weights_summary full --amp_backend native
        --replace_sampler_ddp False --checkpoint_callback False --distributed_backend ddp --track_grad_norm 2
        --flush_logs_every_n_steps 10 --process_position 1 --weights_save_path PATH --reload_dataloaders_every_epoch""",
}  # fmt: skip
SCRIPTS = sorted({command.split()[0] for command in COMMANDS.values()})

SPY = """
import os, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
code = 0
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as leaving:
    code = leaving.code
heavy = [name for name in ("torch", "pytorch_lightning", "numpy") if name in sys.modules]
print("loaded:", heavy, file=sys.stderr)
sys.exit(code)
"""


def ask(command, cwd=ROOT):
    """Runs a script and tells, as the last line of standard error, which heavy packages it loaded."""
    script, *rest = shlex.split(command)
    argv = [sys.executable, "-c", SPY, str(ROOT / script), *rest]
    return subprocess.run(argv, capture_output=True, text=True, cwd=cwd, timeout=60, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_published_commands_parse_without_loading_anything_heavy(name):
    done = ask(f"{COMMANDS[name]} --print_config")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded: []"
    settings = yaml.safe_load(done.stdout)
    for flag, value in given(COMMANDS[name]).items():
        assert flag in settings, flag
        assert settings[flag] == value, flag


ALIASES = {"CKPT2": "ckpt2", "distributed_backend": "strategy", "replace_sampler_ddp": "use_distributed_sampler",
           "checkpoint_callback": "enable_checkpointing"}  # fmt: skip
WITHOUT_EFFECT = {"i3d_feat", "first_stage_key", "first_stage_vocab_size", "terminate_on_nan", "amp_backend",
                  "track_grad_norm"}  # fmt: skip


def given(command):
    """The flags of a command with the values that `--print_config` must repeat."""
    found = {}
    for part in command.split("--")[1:]:
        name, *values = part.split()
        plain = [yaml.safe_load(value) if not value.startswith("00:") else value for value in values]
        plain = [
            float(value) if isinstance(value, str) and value[0].isdigit() and "e-" in value else value
            for value in plain
        ]
        if name not in WITHOUT_EFFECT:
            found[ALIASES.get(name, name)] = True if not plain else plain[0] if len(plain) == 1 else plain
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_grouped_and_shows_defaults(script):
    done = ask(f"{script} --help")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded: []"
    titles = [line for line in done.stdout.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert len(titles) >= 2, titles
    flags = done.stdout.count("\n  --")
    assert sum(done.stdout.count(each) for each in ("(default:", "(required)", "(needed)")) >= 0.8 * flags


@pytest.mark.parametrize("script", SCRIPTS)
def test_printed_settings_start_the_same_run(script, tmp_path):
    command = next(command for command in COMMANDS.values() if command.startswith(script))
    first = ask(f"{command} --print_config")
    (tmp_path / "run.yaml").write_text(first.stdout)
    second = ask(f"{script} --config {tmp_path / 'run.yaml'} --print_config")
    assert (second.returncode, second.stdout) == (0, first.stdout), second.stderr


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "wrong, words",
    [
        ("--sav_videos 3 --print_config", ["--sav_videos"]),
        ("--seed many", ["--seed", "int", "many"]),
        ("--config nowhere.yaml", ["--config nowhere.yaml", "no such file"]),
        ("--config {bad}", ["sed", "'seed'"]),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(script, wrong, words, tmp_path):
    (tmp_path / "bad.yaml").write_text("sed: 3\n")
    done = ask(f"{script} {wrong.format(bad=tmp_path / 'bad.yaml')}")
    *lines, loaded = done.stderr.splitlines()
    assert done.returncode == 2
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines
    assert loaded == "loaded: []"
    assert not done.stdout


WRONG_PATHS = [
    "train_vqgan.py --data_path {folder}/daata --fast_dev_run",
    "train_transformer.py --vqvae {folder}/vqgan.ckp --data_path {folder}/data",
    "sample_short.py --gpt_ckpt {folder}/gpt.ckp --vqgan_ckpt {folder}/vqgan.ckpt",
    "sample_long.py --gpt_ckpt {folder}/gpt.ckp --vqgan_ckpt {folder}/vqgan.ckpt",
]


@pytest.mark.parametrize("command", WRONG_PATHS)
def test_a_wrong_path_gets_one_line_with_the_nearest_one(command, tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("gpt.ckpt", "vqgan.ckpt"):
        (tmp_path / name).write_bytes(b"")
    done = ask(command.format(folder=tmp_path), cwd=tmp_path)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1
    assert "did you mean" in errors[0], errors
    assert "Traceback" not in done.stderr


def test_a_wrong_verb_gets_the_nearest_one():
    done = subprocess.run(
        [sys.executable, "-m", "tats", "shaeps"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "did you mean 'shapes'" in done.stderr


def test_every_verb_has_its_module_and_answers_help():
    from tats.__main__ import VERBS

    for verb in VERBS:
        argv = [sys.executable, "-m", "tats", verb, "--help"]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage"), verb
