"""Several processes judge as one does: the same clips, the same scores, and one failure for all."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tats.flags import UserError
from tats.metrics.processes import ALONE, World, current

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 120  # seconds, after which a hanging process is killed and the test fails
PROGRAM = """
import json, sys
from datetime import timedelta
import torch
import torch.distributed as dist
from tats.flags import UserError
from tats.metrics.features import RandomNet
from tats.metrics.inception_score import inception_score
from tats.metrics.processes import current
from tats.metrics.quality import Quality
from tats.metrics.scores import compute
from tats.metrics.statistics_cache import cached
from tats.metrics.statistics import describe_clips
from tats.metrics.usage import CodeUsage, Likelihood

rank, size, port, folder, bad = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5] == "bad"
torch.set_num_threads(1)
if size > 1:
    address, limit = f"tcp://127.0.0.1:{port}", timedelta(seconds=60)
    dist.init_process_group("gloo", address, rank=rank, world_size=size, timeout=limit)
world = current()


def clip(number, seed):
    generator = torch.Generator().manual_seed(1000 * seed + number)
    return torch.randint(256, (1, 4, 16, 16, 3), generator=generator, dtype=torch.uint8) // (1 + seed)


class Answers(RandomNet):
    def probabilities(self, frames):
        return self.features(frames)[:, :7].softmax(1)


network = Answers()
mine = lambda count, seed: [clip(number, seed) for number in world.share(range(count))]
if bad:
    try:
        short = [torch.zeros(1, 3, 16, 16, 3, dtype=torch.uint8)]
        compute(short if rank else mine(9, 0), mine(9, 1), network, world=world)
    except UserError as error:
        print(json.dumps(str(error)))
    dist.destroy_process_group()
    sys.exit()
key = {"data": "random"}
real = cached(key, lambda: describe_clips(mine(121, 1), network, "real", world=world), folder=folder, world=world)
found = compute(mine(113, 0), real, network, world=world)
sampled = compute(mine(113, 0), real, network, world=world, keep=20)
tiny = compute(mine(2, 0), mine(3, 1), network, world=world)  # with three processes, one has no generated clip at all
score = inception_score(mine(20, 0), network, 20, splits=3, shuffle=42, world=world)
quality, usage, likelihood = Quality(), CodeUsage(50), Likelihood(12)
for number in world.share(range(11)):
    quality.add(clip(number, 0), clip(number, 1))
    usage.add(clip(number, 0) % 50)
    codes = clip(number, 0).flatten(1)[:, :6].long() % 5
    likelihood.add(clip(number, 1).flatten(1)[:, :30].float().view(1, 6, 5) / 50, codes)
values = {"frechet": found["FCD-random"], "kernel": found["KCD-random"], "kernel of 20": sampled["KCD-random"],
          "tiny": tiny["FCD-random"], "n": [found["n_generated"], found["n_real"]], "IS": score["IS"],
          "IS deviation": score["IS_deviation"]}
print(json.dumps(values | quality.scores(world) | usage.scores(world) | likelihood.scores(world)))
if size > 1:
    dist.destroy_process_group()  # gloo's threads must not outlive the interpreter: that aborts the process
"""


def run(size: int, folder: Path, how: str = "good") -> list:
    """What each of `size` processes prints, all of them killed when one hangs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [[sys.executable, "-c", PROGRAM, str(rank), str(size), str(port), str(folder), how] for rank in range(size)]
    started = [subprocess.Popen(each, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for each in words]
    try:
        done = [process.communicate(timeout=LIMIT) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * size, done[0][1].decode()[-2000:]
    return [json.loads(out) for out, _ in done]


def test_one_two_and_three_processes_agree(tmp_path):
    (alone,) = run(1, tmp_path / "1")
    assert alone["n"] == [113, 121] and alone["n_clips"] == 11 and alone["codes_used"] > 10
    for size in (2, 3):
        results = run(size, tmp_path / str(size))
        assert all(result == results[0] for result in results)
        for name, value in alone.items():
            assert results[0][name] == pytest.approx(value, rel=1e-6, abs=1e-9), f"{name} of {size} processes"
    assert len(list((tmp_path / "3").iterdir())) == 1  # one file, written whole, by one process


def test_a_failure_in_one_process_is_told_in_all(tmp_path):
    first, second = run(2, tmp_path, "bad")
    assert first == second and "differ in shape" in first


def test_alone_nothing_is_sent():
    assert current() == ALONE == World(0, 1)
    rows = torch.arange(3.0)
    assert torch.equal(ALONE.sum(rows), rows) and torch.equal(ALONE.gather(rows), rows)
    assert list(ALONE.share("abc")) == ["a", "b", "c"]
    assert list(World(1, 3).share(range(8))) == [World(1, 3).index(k) for k in range(3)] == [1, 4, 7]
    ALONE.agree(None)
    with pytest.raises(UserError, match="no clips"):
        ALONE.agree("no clips")
