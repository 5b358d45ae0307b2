"""Published flags of the Trainer in the words of today; learning rates; the command that goes on."""

import pytest

from tats.flags import UserError
from tats.trainer_config import (
    TrainerConfig,
    effective_batch,
    go_on_command,
    machine,
    vqgan_rate,
)


@pytest.mark.parametrize(
    "changes, gpus, accelerator, devices, strategy",
    [
        ({}, 0, "cpu", 1, "auto"),
        ({}, 2, "auto", "auto", "auto"),
        ({"gpus": 8}, 0, "cpu", 1, "auto"),
        ({"gpus": 8}, 8, "gpu", 8, "auto"),
        ({"gpus": "0,2"}, 4, "gpu", [0, 2], "auto"),
        ({"gpus": -1}, 4, "gpu", -1, "auto"),
        ({"gpus": 0}, 4, "cpu", 1, "auto"),
        ({"device": "cpu"}, 4, "cpu", "auto", "auto"),
        ({"device": "cuda"}, 1, "gpu", "auto", "auto"),
        ({"accelerator": "ddp", "gpus": 2}, 2, "gpu", 2, "ddp"),
        ({"accelerator": "ddp_cpu", "num_processes": 2}, 0, "cpu", 2, "ddp"),
        ({"strategy": "dp"}, 2, "auto", "auto", "ddp"),
        ({"tpu_cores": 8}, 0, "tpu", 8, "auto"),
    ],
)
def test_published_device_flags_become_the_words_of_today(changes, gpus, accelerator, devices, strategy):
    found = machine(TrainerConfig(**changes), gpus)
    assert (found.accelerator, found.devices, found.strategy) == (accelerator, devices, strategy)
    assert any("no GPU" in remark for remark in found.remarks) == (changes.get("gpus") == 8 and not gpus)


@pytest.mark.parametrize(
    "changes, gpus, words",
    [
        ({"gpus": 8}, 2, "has 2 GPUs"),
        ({"gpus": "a"}, 2, "--gpus takes a number"),
        ({"strategy": "magic"}, 0, "--strategy takes one of"),
        ({"accelerator": "abacus"}, 0, "--accelerator takes one of"),
    ],
)
def test_devices_that_are_not_there_are_refused(changes, gpus, words):
    with pytest.raises(UserError, match=words):
        machine(TrainerConfig(**changes), gpus)


@pytest.mark.parametrize(
    "changes",
    [{"max_steps": -3}, {"val_check_interval": 1.5}, {"val_check_interval": 0.0}, {"accumulate_grad_batches": 0},
     {"limit_train_batches": 1.5}, {"gradient_clip_val": -1.0}, {"log_every_n_steps": 0}],
)  # fmt: skip
def test_numbers_that_mean_nothing_are_refused(changes):
    with pytest.raises(UserError, match=f"--{next(iter(changes))}"):
        TrainerConfig(**changes)


def test_learning_rates_and_batches_follow_the_published_rules():
    assert vqgan_rate(3e-5, 2, 6, 8)[0] == pytest.approx(6 * 8 / 8 * 2 / 4 * 3e-5)
    assert effective_batch(2, 6, 8).startswith("effective batch 96 = 2 (batch size)")


def test_the_command_to_go_on_replaces_earlier_resume_flags():
    argv = ["python", "train.py", "--resume", "never", "--lr", "1", "--resume-from-checkpoint=a", "--save_dir", "b c"]
    assert go_on_command(argv, "x.ckpt") == "python train.py --lr 1 --save_dir 'b c' --resume x.ckpt"
