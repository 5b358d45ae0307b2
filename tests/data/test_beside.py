"""What goes into code shards with the codes: captions, codes of sounds and of semantic maps; and what comes back."""

import json

import numpy as np
import pytest
import torch
from films import film_folders

from tats import checkpoint, tokenize
from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.flags import UserError
from tats.gpt.config import GPTConfig
from tats.gpt.train import GPTTraining
from tats.gpt.train_condition import Frozen, opened
from tats.gpt.train_config import GPTTrainConfig
from tats.gpt.train_setup import fit_to_data, start
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

CLASSES = 3  # of the semantic maps
SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 0}
KEY = "label+text+stft+smap"


def vqgan_of(folder, channels, downsample, seed, **sizes):
    """A VQGAN of a few weights, stored in `folder`."""
    torch.manual_seed(seed)
    config = VQGANConfig(8, 16 + seed, 4, downsample, "batch", image_channels=channels, sequence_length=8, **sizes)
    checkpoint.save(VQGAN(config).eval(), folder)
    return str(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Films of two classes with captions, sounds and maps; a VQGAN of each kind; and the codes of all."""
    root = tmp_path_factory.mktemp("beside")
    films = film_folders(root / "films", {"ape": 2, "bee": 1}, 16, codec="mpeg4")
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        names = [path.relative_to(films / split) for path in sorted((films / split).rglob("*.mp4"))]
        texts = {str(name): [f"an animal, number {n}", f"{name.parent}"] for n, name in enumerate(names)}
        (films / split / "captions.json").write_text(json.dumps(texts))
        for name in names:
            for folder, array in (
                (films / "stft", random.random((16, 64, 16), np.float32)),
                (root / "maps", random.integers(0, CLASSES, (16, 48, 64)).astype(np.uint8)),
            ):
                path = folder / split / name.with_suffix(".npy")
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, array)
    models = {
        "vqgan_ckpt": vqgan_of(root / "video", 3, (4, 8, 8), 1, resolution=16),
        "stft_vqgan_ckpt": vqgan_of(root / "sound", 1, (4, 16, 8), 2, resolution=64, width=16),
        "smap_vqgan_ckpt": vqgan_of(root / "map", CLASSES, (2, 8, 8), 3, resolution=16, of_maps=True),
    }
    flags = [f"--{name}={path}" for name, path in models.items()] + ["--out", str(root / "codes"), "--device", "cpu"]
    flags += ["--data_path", str(films), "--smap_path", str(root / "maps"), "--window_stride", "4"]
    root.joinpath("flags.json").write_text(json.dumps([*flags, "--sequence_length", "8", "--num_workers", "0"]))
    tokenize.main(json.loads(root.joinpath("flags.json").read_text()))
    return root


def pixels(root):
    return DataConfig(
        data_path=str(root / "films"), stft_data=True, smap_path=str(root / "maps"), sequence_length=8, resolution=16,
        num_workers=0, batch_size=4,
    )  # fmt: skip


def codes(root, **settings):
    return DataConfig(data_path=str(root / "codes"), vtokens=True, num_workers=0, batch_size=4, **settings)


def module_of(root, data, **flags):
    """Training as train_transformer.py sets it up: data, transformer and what turns clips into conditions."""
    training = GPTTrainConfig(
        vqvae=str(root / "video"), stft_vqvae=str(root / "sound"), smap_vqvae=str(root / "map"), **flags
    )
    gpt = GPTConfig(**SMALL, cond_stage_key=KEY)
    videos, frozen, texts = opened(gpt, training, data, seed=0)
    config, _ = fit_to_data(gpt, training, videos, frozen, texts)
    made = start(config, training, None, 0)
    module = GPTTraining(made, training, 1e-3, vqgan=None if data.vtokens else frozen.vqgan, text_tokens=texts,
                         sound_vqgan=frozen.sound, smap_vqgan=frozen.smap)  # fmt: skip
    return module, videos


def test_conditions_from_codes_are_those_from_pixels(made):
    from_pixels, videos = module_of(made, pixels(made))
    from_codes, shards = module_of(made, codes(made))
    assert from_codes.gpt.config == from_pixels.gpt.config
    config = from_pixels.gpt.config
    assert [(part.key, part.n_cond, part.n_ids) for part in config.parts if part.key != "text"] == [
        ("label", 1, 2), ("stft", 2 * 4 * 2, 18), ("smap", 4 * 2 * 2, 19)
    ]  # fmt: skip
    assert config.block_size == config.n_cond + 2 * 2 * 2 - 1 and config.bpe is not None
    index, source = shards.source("train").index, videos.source("train")
    for clip in (0, 4, 8):
        video, begin = index.video[clip], index.start[clip]
        both = [source.read(video, begin, np.random.default_rng(1)), shards.source("train").read(clip, 0, np.random.default_rng(1))]  # fmt: skip  # noqa: E501
        batches = [{name: value[None] if isinstance(value, torch.Tensor) else [value] for name, value in each.items()} | {"label": torch.tensor([each["label"]])} for each in both]  # fmt: skip  # noqa: E501
        assert torch.equal(from_pixels.codes(batches[0]), from_codes.codes(batches[1]))
        assert torch.equal(from_pixels.condition(batches[0]), from_codes.condition(batches[1]))


def test_checkpoints_know_the_models_that_their_conditions_come_from(made, tmp_path):
    module, shards = module_of(made, codes(made))
    expected = {
        f"{key}_vqgan": checkpoint.fingerprint(made / name) for key, name in (("stft", "sound"), ("smap", "map"))
    }
    assert Frozen(None).prints(shards) == Frozen.load(module.config).prints(shards) == expected
    checkpoint.save(module.gpt, tmp_path / "gpt", expected)
    assert checkpoint.load_sound_vqgan(tmp_path / "gpt", made / "sound").n_codes == 18
    with pytest.raises(UserError, match="trained on sounds of another VQGAN"):
        checkpoint.load_sound_vqgan(tmp_path / "gpt", made / "map")


def test_a_run_does_not_go_on_with_other_words(made):
    module, _ = module_of(made, codes(made))
    stored: dict = {}
    module.on_save_checkpoint(stored)
    module.on_load_checkpoint(stored)
    stored["config"]["bpe"] = stored["config"]["bpe"].replace("a", "b")
    with pytest.raises(UserError, match="other byte pairs"):
        module.on_load_checkpoint(stored)


def test_captions_that_do_not_fit_are_counted_and_named(made):
    with pytest.raises(
        UserError, match=r"6 of 12 captions have more than the \d+ tokens.*number \d.*--truncate_captions"
    ) as e:
        module_of(made, codes(made), text_len=6)
    assert "ape/" in str(e.value) or "bee/" in str(e.value)
    module, shards = module_of(made, codes(made), text_len=6, truncate_captions=True)
    assert module.gpt.config.part("text").n_cond == 6
    assert module.step(next(iter(shards.train_loader())))[0].isfinite()


def test_every_part_of_the_condition_has_ids_of_its_own(made):
    module, shards = module_of(made, codes(made))
    batch = next(iter(shards.train_loader()))
    cond = module.condition(batch)
    for part in module.gpt.config.parts:
        ids = cond[:, part.start : part.start + part.n_cond] - part.first_id
        assert ids.min() >= 0 and ids.max() < part.n_ids
    assert cond[:, 0].tolist() == batch["label"].tolist()
    loss = module.step(batch)[0]
    loss.backward()
    assert loss.isfinite()


def test_one_of_the_captions_is_drawn_from_seed_pass_and_clip(made):
    data = VideoData(codes(made, text_cond=True), seed=3)
    again = [batch["text"] for _ in range(8) for batch in data.train_loader()]
    assert again == [batch["text"] for _ in range(8) for batch in VideoData(codes(made, text_cond=True), seed=3).train_loader()]  # fmt: skip  # noqa: E501
    assert len({text for batch in again for text in batch}) == 5  # two of each film, two films share the class
    fixed = [batch["text"] for _ in range(2) for batch in data.test_loader()]
    assert fixed[: len(fixed) // 2] == fixed[len(fixed) // 2 :]


def test_windows_of_clips_take_the_stretch_of_their_own_frames(made):
    whole = VideoData(codes(made), seed=0).source("train")
    part = VideoData(codes(made, latent_frames=1), seed=0).source("train")
    for clip in range(3):
        clips = [whole.read(clip, 0, None), part.read(clip, 1, None)]
        assert torch.equal(clips[1]["stft_codes"], clips[0]["stft_codes"][1:])
        assert torch.equal(clips[1]["smap_codes"], clips[0]["smap_codes"][2:])


def test_the_same_call_keeps_what_is_there_and_notices_other_captions(made, capsys):
    flags = json.loads((made / "flags.json").read_text())
    tokenize.main(flags)
    assert capsys.readouterr().err.count("these codes are there already") == 2
    path = made / "films" / "test" / "captions.json"
    before = path.read_text()
    path.write_text(before.replace("number", "figure"))
    tokenize.main(flags)
    index = json.loads((made / "codes" / "test" / "index.json").read_text())
    assert index["captions"][0] == ["an animal, figure 0", "ape"]
    path.write_text(before)
    with pytest.raises(UserError, match="codes of videos and stft and smap, not of videos and smap as asked for"):
        tokenize.main([flag for flag in flags if not flag.startswith("--stft")])


def test_what_is_missing_or_another_is_named(made, tmp_path):
    films = film_folders(tmp_path / "films", {"ape": 1}, 8, codec="mpeg4")
    flags = ["--vqgan_ckpt", str(made / "video"), "--data_path", str(films), "--out", str(tmp_path / "codes")]
    tokenize.main([*flags, "--sequence_length", "8", "--num_workers", "0", "--device", "cpu"])
    alone = DataConfig(data_path=str(tmp_path / "codes"), vtokens=True, num_workers=0)
    with pytest.raises(UserError, match="holds no captions"):
        VideoData(DataConfig(**{**vars(alone), "text_cond": True}), seed=0).source("train")
    for key in ("stft", "smap"):
        gpt, training = GPTConfig(**SMALL, cond_stage_key=key), GPTTrainConfig(vqvae=str(made / "video"))
        videos, frozen, texts = opened(gpt, training, alone, seed=0)
        with pytest.raises(UserError, match=f"tats tokenize --{key}_vqgan_ckpt"):
            fit_to_data(gpt, training, videos, frozen, texts)
    gpt, training = GPTConfig(**SMALL, cond_stage_key="stft"), GPTTrainConfig(stft_vqvae=str(made / "map"))
    videos, frozen, texts = opened(gpt, training, codes(made), seed=0)
    with pytest.raises(UserError, match="--stft_vqvae is not the VQGAN that made"):
        fit_to_data(gpt, training, videos, frozen, texts)


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_damaged_files_beside_are_refused(made, tmp_path, damage):
    folder = tmp_path / "train"
    folder.mkdir()
    for path in (made / "codes" / "train").iterdir():
        folder.joinpath(path.name).write_bytes(path.read_bytes())
    path = folder / "stft_00000.bin"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-2] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(UserError, match=r"stft_00000\.bin"):
        VideoData(DataConfig(data_path=str(tmp_path), vtokens=True), seed=0).source("train")
