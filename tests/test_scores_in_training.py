"""Scores while a model trains, and the best checkpoint by them."""

import pytest
import torch
from training_parts import CADENCE, OnePlayer, Settings, config, loader, names

from tats import best
from tats.data.config import DataConfig
from tats.flags import UserError
from tats.gpt.config import GPTConfig
from tats.metrics.protocols import find
from tats.metrics.sides import MadeClips
from tats.metrics_callback import Scores, gpt_scores, vqgan_scores
from tats.score_config import ScoreConfig
from tats.training import fit

PROTOCOL = find("clips")
NOISE = torch.randint(60, 120, (20, 4, 4, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class Levels(torch.nn.Module):
    """A network of three numbers: mean colours."""

    scores, title, unit = ("D", "K"), "distance of colours", "clip"

    def features(self, frames):
        return frames.double().mean((1, 2, 3))

    def describe(self):
        return {"name": "colours", "fingerprint": "colours", "width": 3}


class Drifting(OnePlayer):
    """Comes close to the data at its sixth step, and leaves again."""

    @property
    def brightness(self):
        assert not self.training  # scored in evaluation mode
        return 10 * abs(self.global_step - 6)


def clips(brightness):
    return MadeClips(20, lambda numbers, seed: NOISE[list(numbers)] + brightness, PROTOCOL, {})


def run(folder, module, **changes):
    settings = Settings(trainer=config(folder, **changes))
    watch = Scores(lambda module, *_: clips(module.brightness), clips(0), PROTOCOL, Levels(), every=2)
    return watch, fit(module, loader(), loader(), settings.trainer, name="tiny", cadence=CADENCE, settings=settings,
                      callbacks=[watch])  # fmt: skip


def test_the_best_by_a_score_is_kept_and_found(tmp_path, capsys):
    module = Drifting()
    _, folder = run(tmp_path, module, max_steps=10)
    assert module.training
    kept = [name for name in names(folder) if name.startswith("best-D")]
    assert len(kept) == 1 and kept[0].startswith("best-D-step=6-")
    best.main([str(folder)])
    said = capsys.readouterr()
    assert said.out.strip().endswith(kept[0]) and "score/D" in said.err
    path, name, value = best.best(folder, "val/loss")
    assert name == "val/loss" and path.exists() and value > 0
    with pytest.raises(UserError, match="did you mean 'val/loss'"):
        best.best(folder, "val/los")
    with pytest.raises(UserError, match="no checkpoints below"):
        best.best(tmp_path / "nothing")


def test_a_resumed_run_remembers_the_best(tmp_path):
    run(tmp_path, Drifting(), max_steps=6)
    watch, folder = run(tmp_path, Drifting(), max_steps=10)
    assert watch.best[1].startswith("best-D-step=6-")
    assert [name for name in names(folder) if name.startswith("best-D")] == [watch.best[1]]


def test_nothing_is_scored_unless_asked_and_mistakes_get_one_line():
    gpt = GPTConfig(unconditional=True)
    assert vqgan_scores(ScoreConfig(), DataConfig(), 0) == [] == gpt_scores(ScoreConfig(), DataConfig(), gpt, None, 0)
    asked = ScoreConfig(score_every=5, features_ckpt="none.pt")
    for call, said in (
        (lambda: ScoreConfig(score_every=5), "one network that judges"),
        (lambda: ScoreConfig(score_every=0, i3d_ckpt="x"), "1 or more"),
        (lambda: gpt_scores(asked, DataConfig(), gpt, None, 0), "--vqvae is needed"),
        (lambda: vqgan_scores(asked, DataConfig(), 0), "--data_path is needed"),
        (lambda: vqgan_scores(ScoreConfig(score_every=5, i3d_ckpt="x", score_protocol="teco/pairs"), DataConfig(), 0),
         "does not compare two sets"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            call()
