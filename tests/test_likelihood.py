"""`tats evaluate --nll`: bits of codes and pixels equal a direct computation, by class and word, alone and together."""

import json
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from gpt_parts import tiny_gpt
from torch.nn.functional import cross_entropy

from tats import checkpoint, evaluate, likelihood
from tats.data.code_index import Index
from tats.data.code_writer import CodeWriter
from tats.flags import UserError
from tats.gpt.condition import empty_condition
from tats.gpt.model import GPT
from tats.gpt.objective import predict
from tats.likelihood import Tally, others, words_of
from tats.media import write_video
from tats.metrics.processes import World
from tats.metrics.usage import Likelihood
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

NAMES = ["blue_circle", "red_circle", "red_square"]
CLIPS = 11


def tiny_vqgan():
    torch.manual_seed(0)
    sizes = {"n_codes": 37, "embedding_dim": 4, "n_hiddens": 2, "downsample": (2, 4, 4), "resolution": 8}
    return VQGAN(VQGANConfig(**sizes, norm_type="batch", sequence_length=10)).eval()


def named(gpt):
    """The same weights, with names of the classes, in float32."""
    other = GPT(replace(gpt.config, label_names=NAMES)).eval()
    other.load_state_dict(gpt.state_dict())
    return other


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with models and shards of codes; the codes and labels of the test split."""
    folder = tmp_path_factory.mktemp("likelihood")
    checkpoint.save(vqgan := tiny_vqgan(), folder / "vqgan")
    parts = [("label", 1, 3)]
    models = {
        "gpt": tiny_gpt(conditions=parts, empty=True),
        "between": tiny_gpt(n_unmasked=4, conditions=parts),
        "alone": tiny_gpt(key="none"),
    }
    for name, gpt in models.items():
        models[name] = named(gpt) if name != "alone" else gpt.float()
        checkpoint.save(models[name], folder / name)
    codes = torch.randint(37, (CLIPS, 5, 2, 2), generator=torch.Generator().manual_seed(1))
    labels = [n % 3 for n in range(CLIPS)]
    clip = {
        "sequence_length": 10,
        "sample_every_n_frames": 1,
        "resolution": 8,
        "image_channels": 3,
        "window_stride": 10,
    }
    for split in ("train", "test"):
        index = Index(37, (5, 2, 2), checkpoint.fingerprint(vqgan), clip, NAMES, [f"v{n}" for n in range(CLIPS)])
        writer = CodeWriter(folder / "codes" / split, index)
        writer.add(codes, range(CLIPS), [0] * CLIPS, labels)
        writer.close()
    return folder, models, codes, torch.tensor(labels)


def run(folder, *flags, gpt="gpt", data="codes"):
    out = folder / "nll.json"
    words = ["--nll", "--gpt_ckpt", folder / gpt, "--vqgan_ckpt", folder / "vqgan", "--data_path", folder / data]
    words += ["--out", out, "--device", "cpu", "--batch_size", 4, "--num_workers", 0]
    words += ["--vtokens"] if data == "codes" else []
    evaluate.main([str(word) for word in [*words, *flags]])
    return json.loads(out.read_text())


def direct(gpt, cond, codes, new=slice(None), scale=1.0):
    """Bits of every clip: [B]."""
    with torch.no_grad():
        logits, _ = predict(gpt, cond, codes)
        if scale != 1:
            empty, _ = predict(gpt, empty_condition(gpt.config, len(codes)), codes)
            logits = empty + scale * (logits - empty)
    logits = logits[:, new, gpt.config.code_offset :].double()
    target = codes.flatten(1)[:, new]
    return cross_entropy(logits.transpose(1, 2), target, reduction="none").sum(1) / math.log(2)


def test_bits_equal_a_direct_computation(world, capsys):
    folder, models, codes, labels = world
    result = run(folder)
    bits = direct(models["gpt"], labels[:, None], codes)
    assert result["bits_per_code"] == pytest.approx(float(bits.sum() / codes.numel()), rel=1e-6)
    assert result["bits_per_dimension"] == pytest.approx(float(bits.sum()) / (CLIPS * 10 * 8 * 8 * 3), rel=1e-6)
    assert (result["n_videos"], result["n_codes_judged"]) == (CLIPS, codes.numel())
    with torch.no_grad():
        logits, target = predict(models["gpt"], labels[:, None], codes)
    assert result["loss"] == pytest.approx(float(cross_entropy(logits.flatten(0, 1), target.flatten())), rel=1e-5)
    for number, name in enumerate(NAMES):
        mine = bits[labels == number]
        assert result["by"]["label"][name]["bits_per_code"] == pytest.approx(float(mine.mean() / 20), rel=1e-6)
        assert result["by"]["label"][name]["n_videos"] == len(mine)
    assert set(result["by"]["word"]) == {"red", "circle"}  # words that some classes have and others have not
    red = bits[labels > 0]
    assert result["by"]["word"]["red"]["bits_per_code"] == pytest.approx(float(red.mean() / 20), rel=1e-6)
    assert result["line"] in capsys.readouterr().out


def test_a_shuffled_condition_is_that_of_another_clip(world):
    folder, models, codes, labels = world
    result, other = run(folder, "--nll_shuffled"), others(CLIPS, 0)
    assert sorted(other) == list(range(CLIPS)) and all(n != m for n, m in enumerate(other))
    bits = direct(models["gpt"], labels[other][:, None], codes)
    assert result["shuffled"]["bits_per_code"] == pytest.approx(float(bits.sum() / codes.numel()), rel=1e-6)
    same = float((labels[other] == labels).double().mean())
    assert result["shuffled"]["same_condition"] == pytest.approx(same)
    assert f"{result['shuffled']['bits_per_code']:.4f}" in result["line"]


def test_guided_bits_and_bits_of_frames_between(world):
    folder, models, codes, labels = world
    bits = direct(models["gpt"], labels[:, None], codes, scale=2.0)
    assert run(folder, "--cfg_scale", 2)["bits_per_code"] == pytest.approx(float(bits.sum() / codes.numel()), rel=1e-5)
    bits = direct(models["between"], labels[:, None], codes, slice(4, 16))
    result = run(folder, gpt="between")
    assert result["bits_per_code"] == pytest.approx(float(bits.sum() / (CLIPS * 12)), rel=1e-6)
    assert result["bits_per_dimension"] == pytest.approx(float(bits.sum()) / (CLIPS * 6 * 8 * 8 * 3), rel=1e-6)
    assert "fills in frames" in result["notes"][0]
    alone = direct(models["alone"], torch.zeros(CLIPS, 1).long(), codes)
    assert run(folder, gpt="alone")["bits_per_code"] == pytest.approx(float(alone.sum() / codes.numel()), rel=1e-6)


def test_clips_of_videos_are_judged_by_their_codes(world):
    folder = world[0]
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in NAMES:
            (folder / "videos" / split / name).mkdir(parents=True)
            frames = torch.from_numpy(rng.integers(0, 256, (1, 23, 8, 8, 3), dtype=np.uint8))
            video = frames.permute(0, 4, 1, 2, 3).float() / 255 - 0.5
            write_video(folder / "videos" / split / name / "a.mp4", video, fps=16)
    result = run(folder, data="videos")
    assert result["n_videos"] == 6 and result["by"]["label"]["red_circle"]["n_videos"] == 2  # windows side by side
    assert run(folder, data="videos")["bits_per_code"] == result["bits_per_code"]
    assert run(folder, "--limit", 2, data="videos")["n_videos"] == 2


@dataclass(frozen=True)
class OneOfTwo(World):
    """One of two processes that run one after the other; the second hears what the first has found."""

    heard: list = field(default_factory=list)

    def sum(self, tensor):
        """The sum of both."""
        if self.rank:
            self.heard.append(tensor)
            return tensor
        return tensor + self.heard.pop(0)

    def agree(self, failure):
        """Nothing has failed."""
        assert failure is None


def test_processes_share_the_clips_and_find_the_same(world, monkeypatch):
    folder, heard = world[0], []
    found = run(folder, "--nll_shuffled")
    (folder / "nll.json").unlink()
    monkeypatch.setattr(likelihood, "join", lambda device: (OneOfTwo(1, 2, heard), "cpu"))
    with pytest.raises(FileNotFoundError):
        run(folder, "--nll_shuffled")  # it only helps: nothing is written
    monkeypatch.setattr(likelihood, "join", lambda device: (OneOfTwo(0, 2, heard), "cpu"))
    together = run(folder, "--nll_shuffled")
    assert together["by"].keys() == found["by"].keys() and together["n_videos"] == CLIPS and not heard
    for kind in ("bits_per_code", "bits_per_dimension", "loss"):
        assert together[kind] == pytest.approx(found[kind], rel=1e-6)
        assert together["shuffled"][kind] == pytest.approx(found["shuffled"][kind], rel=1e-6)
    assert together["shuffled"]["same_condition"] == pytest.approx(found["shuffled"]["same_condition"])


def test_a_group_without_clips_is_left_out():
    tally = Tally.of(12, [("label", "a"), ("label", "b")])
    tally.add(torch.randn(3, 9), torch.tensor([0, 1, 2]), 4, [("label", "b")])
    scores = tally.scores(World())
    assert list(scores["by"]["label"]) == ["b"]
    assert scores["by"]["label"]["b"]["bits_per_code"] == scores["bits_per_code"]
    whole = Likelihood(12)
    whole.include(tally.whole)
    assert whole.scores()["bits_per_dimension"] == pytest.approx(scores["bits_per_dimension"])


def test_words_of_captions_and_names():
    assert words_of("A red_circle, moving left.") == {"a", "red", "circle", "moving", "left"}


@pytest.mark.parametrize(
    "flags, gpt, message",
    [
        (["--cfg_scale", "2"], "between", "needs a transformer that was trained with --cond_dropout"),
        (["--nll_shuffled"], "alone", "needs two clips or more, and a condition"),
        (["--split", "train+test"], "gpt", "one split, train or test"),
        (["--latent_frames", "3"], "gpt", "clips of 3x2x2 codes, this transformer was trained on 5x2x2"),
        (["--protocol", "tats"], "gpt", "leave --protocol out"),
    ],
)
def test_what_cannot_be_judged_is_said(world, flags, gpt, message):
    with pytest.raises(UserError, match=message.replace("+", r"\+")):
        run(world[0], *flags, gpt=gpt)


def test_flags_that_belong_to_it_need_it():
    for words, message in (
        (["--nll_shuffled"], "--nll_shuffled belongs to --nll"),
        (["--nll"], "--nll needs --gpt_ckpt"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main(words)
