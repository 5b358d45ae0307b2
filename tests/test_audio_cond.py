"""sample_audio_cond.py from command to file: clips of a data set, sounds of any length, real film with its sound."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sound_parts import likeness, noise, run, save_models

from tats import checkpoint
from tats.data.prepare_stft import prepare_stft
from tats.data.shapes import make
from tats.data.shapes_config import ShapesConfig
from tats.data.sound import sound_pictures
from tats.flags import UserError
from tats.gpt.api import sample_codes, sample_long_codes
from tats.gpt.course import Change
from tats.media import read_frames, write_video
from tats.reader import read_clip, scan
from tats.sound import read_sound
from tats.video import preprocess, to_frames

RUN = "videos/drum/topp0.92_topk2048_run0"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a tiny VQGAN, a VQGAN of sounds, and a transformer by sound over windows of 16 frames."""
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """The embedded dataset with its spectrograms: 4 and 2 videos of 32 frames."""
    root = tmp_path_factory.mktemp("shapes") / "data"
    make(ShapesConfig(str(root), n_train=4, n_test=2, frames=32, resolution=16, num_workers=1))
    prepare_stft(str(root), workers=1)
    return root


def listen(models, save, *flags, gpt="gpt"):
    given = ["--gpt_ckpt", models / gpt, "--vqgan_ckpt", models / "vqgan", "--stft_vqgan_ckpt", models / "stft"]
    run("sample_audio_cond.py", *given, "--save", save, "--device", "cpu", *flags)
    return np.load(save / "codes.npz")["codes"], json.loads((save / "manifest.json").read_text())


def test_clips_of_a_data_set_give_videos_with_their_sound(models, shapes, tmp_path):
    codes, manifest = listen(models, tmp_path, "--data_path", shapes / "stft", "--n_sample", 3, "--batch_size", 2)
    assert codes.shape == (3, 4, 2, 2) and codes.max() < 37
    films = tmp_path / RUN
    names = {path.name for path in films.iterdir()}
    kinds = ("generation", "groundtruth", "source")
    assert names == {f"{kind}_{i}.mp4" for kind in kinds for i in range(3)} | {"grid_00000.mp4"}
    for number, entry in enumerate(manifest["videos"]):
        source = shapes / "test" / entry["sound"]["file"]
        start = entry["sound"]["frame"]
        assert start == 16 * (number % 2)
        whole = read_sound(source, 16000)[start * 1000 : start * 1000 + 16000]
        for kind in ("generation", "groundtruth"):
            path = films / f"{kind}_{number}.mp4"
            assert read_frames(path).shape == (16, 16, 16, 3) and scan(path).fps == 16
            heard = read_sound(path, 16000)[:16000]
            assert np.abs(heard - whole).max() < 0.1 and 0.2 * whole.max() <= heard.max() + 1e-3
        assert (films / f"source_{number}.mp4").read_bytes() == source.read_bytes()
        true = to_frames(preprocess(read_clip(source, scan(source), start, 16), 16)).numpy()
        assert np.abs(read_frames(films / f"groundtruth_{number}.mp4").astype(int) - true).mean() < 4


def test_the_codes_are_those_of_the_public_sampler(models, shapes, tmp_path):
    codes, _ = listen(models, tmp_path, "--data_path", shapes, "--n_sample", 4, "--batch_size", 4, "--save_arrays")
    gpt, sounds = tats_models(models)
    clips = [sound_pictures(np.load(path), start, 16) for path in sorted((shapes / "stft/test").rglob("*.npy"))
             for start in (0, 16)]  # fmt: skip
    own = sample_codes(gpt, sound=sounds.encode(torch.stack(clips)), seeds=range(4), top_k=2048, top_p=0.92)
    assert np.array_equal(codes, own.numpy())
    assert np.load(tmp_path / f"numpy_files/drum/{RUN.split('/')[-1]}_eval.npy").shape == (4, 16, 16, 16, 3)
    assert not (tmp_path / "videos").exists()


def tats_models(models):
    return checkpoint.load_transformer(models / "gpt"), checkpoint.load_vqgan(models / "stft")


@pytest.fixture
def sound_file(tmp_path):
    """Three seconds of sound in a file that shows nothing: 48 frames at 16 per second."""
    path = tmp_path / "song.m4a"
    write_video(tmp_path / "song.mp4", np.zeros((6, 16, 16, 3), np.uint8), 2, sound=(noise(3), 16000))
    strip_pictures(tmp_path / "song.mp4", path)
    return path


def strip_pictures(source, target):
    import av

    with av.open(str(source)) as opened, av.open(str(target), "w", format="mp4") as file:
        stream = file.add_stream_from_template(opened.streams.audio[0])
        for packet in opened.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                file.mux(packet)


def test_a_sound_of_any_length_gives_a_film_that_plays_it(models, sound_file, tmp_path):
    codes, manifest = listen(
        models, tmp_path / "out", "--audio", sound_file, "--n_sample", 2, "--save_as", "mp4", "gif"
    )
    assert codes.shape == (2, 12, 2, 2) and not np.array_equal(codes[0], codes[1])
    assert manifest["videos"][1]["sound"]["file"] == str(sound_file)
    film = tmp_path / "out" / RUN / "generation_1.mp4"
    same, late = likeness(read_sound(film, 16000)[:48000], read_sound(sound_file, 16000)[:48000])
    assert same > 0.99 and abs(late) <= 16  # a millisecond; a frame is 62
    assert len(read_frames(film)) == 48 and (film.parent / "generation_1.gif").exists()


def test_every_window_hears_the_sound_of_its_own_frames(models, sound_file, tmp_path):
    """The script's codes are those of the public sampler, given each window's sound, encoded by itself."""
    from tats.data.spectrogram import RATE, spectrogram

    codes, _ = listen(models, tmp_path / "out", "--audio", sound_file, "--temporal_sample_pos", 2, "--top_k", 5)
    gpt, sounds = tats_models(models)
    pictures = np.concatenate(list(spectrogram([read_sound(sound_file, RATE)], np.arange(12 * 4 + 17) / 16)))
    windows = [sounds.encode(sound_pictures(pictures, 4 * n, 16)[None]) for n in range(12)]
    given = {"seeds": [0], "top_k": 5, "top_p": 0.92}
    own = list(sample_long_codes(gpt, 12, 2, sound=torch.stack(windows, 1), **given))
    assert np.array_equal(codes[0], torch.stack(own, 1)[0].numpy())
    silent = sound_pictures(0 * pictures, 0, 16)[None]
    other = list(sample_long_codes(gpt, 12, 2, sound=sounds.encode(silent), **given))
    assert not torch.equal(torch.stack(own, 1), torch.stack(other, 1))


def test_a_short_sound_is_one_window_and_frames_cut_a_long_one(models, sound_file, tmp_path):
    codes, _ = listen(models, tmp_path / "a", "--audio", sound_file, "--frames", 12)
    assert codes.shape == (1, 3, 2, 2)
    film = tmp_path / "a" / RUN / "generation_0.mp4"
    assert abs(len(read_sound(film, 16000)) / 16000 - 12 / 16) < 0.1
    longer, _ = listen(models, tmp_path / "b", "--audio", sound_file, "--frames", 24, "--fps", 8)
    assert longer.shape == (1, 6, 2, 2)


def test_a_stopped_run_goes_on_with_the_same_codes(models, sound_file, tmp_path, monkeypatch):
    from tats.codes_file import Journal

    whole, _ = listen(models, tmp_path / "whole", "--audio", sound_file)
    append, count = Journal.append, []

    def stops(self, codes):
        count.append(1)
        if len(count) == 7:
            raise KeyboardInterrupt
        append(self, codes)

    monkeypatch.setattr(Journal, "append", stops)
    with pytest.raises(KeyboardInterrupt):
        listen(models, tmp_path / "cut", "--audio", sound_file)
    monkeypatch.undo()
    codes, _ = listen(models, tmp_path / "cut", "--audio", sound_file)
    assert np.array_equal(codes, whole)
    assert (tmp_path / "cut" / RUN / "generation_0.mp4").exists()


def test_classes_of_the_clips_go_with_their_sounds(models, shapes, tmp_path):
    _, manifest = listen(models, tmp_path, "--data_path", shapes, "--n_sample", 3, "--save_arrays", gpt="both")
    classes = [Path(entry["sound"]["file"]).parent.name for entry in manifest["videos"]]
    assert classes == ["red_circle", "red_circle", "red_square"] == [entry["class"] for entry in manifest["videos"]]
    assert [entry["label"] for entry in manifest["videos"]] == [2, 2, 1]
    other = checkpoint.load_transformer(models / "both")
    other.config = replace(other.config, label_names=None)
    checkpoint.save(other, tmp_path / "nameless")
    with pytest.raises(UserError, match="no names of its classes: say with --label"):
        listen(models, tmp_path / "b", "--data_path", shapes, gpt=tmp_path / "nameless")


def test_codes_of_every_window_are_the_slices_they_were_cut_from(models):
    gpt, _ = tats_models(models)
    codes = torch.randint(11, (2, 13, 2, 1), generator=torch.Generator().manual_seed(0))
    windows = torch.stack([codes[:, [min(n + k, 12) for k in range(4)]] for n in range(13)], 1)  # [2, 13, 4, 2, 1]
    for frames, context in ((9, 3), (9, 1), (3, 2)):
        given = {"seeds": [3, 4], "top_k": 1}
        cut = list(sample_long_codes(gpt, frames, context, sound=codes, **given))
        whole = list(sample_long_codes(gpt, frames, context, sound=windows, **given))
        assert all(torch.equal(one, other) for one, other in zip(cut, whole, strict=True))
    with pytest.raises(UserError, match="stays the same on the way"):
        changes = [Change(2, sound=windows)]
        list(sample_long_codes(gpt, 9, 3, sound=windows.clone(), schedule=changes, seeds=[3, 4]))


@pytest.mark.parametrize("flags, words", [
    (["--stft_vqgan_ckpt", ""], "--stft_vqgan_ckpt is needed"),
    (["--stft_vqgan_ckpt", "{models}/vqgan"], "--stft_vqgan_ckpt does not go with --gpt_ckpt"),
    (["--gpt_ckpt", "{models}/label"], "not conditioned on sound"),
    (["--audio", "nowhere.wav"], "nowhere.wav does not exist"),
    (["--audio", "{file}"], "test_audio_cond.py cannot be read"),
    (["--audio", "x.wav", "--frames", "0"], "--frames counts frames"),
    (["--frames", "8"], "--frames is for --audio"),
    (["--data_path", "{models}"], "tats prepare --stft"),
    (["--n_sample", "0"], "--n_sample counts videos"),
])  # fmt: skip
def test_a_mistake_is_said_in_one_line(models, tmp_path, flags, words):
    given = {"--gpt_ckpt": models / "gpt", "--vqgan_ckpt": models / "vqgan", "--stft_vqgan_ckpt": models / "stft",
             "--save": tmp_path / "out"}  # fmt: skip
    given |= {name: value.format(models=models, file=__file__) for name, value in zip(flags[::2], flags[1::2])}
    with pytest.raises(UserError) as caught:
        run("sample_audio_cond.py", *[word for pair in given.items() for word in pair])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_frames_that_do_not_come_out_even_are_refused(models, sound_file, tmp_path):
    with pytest.raises(UserError, match="Nearest: 8"):
        listen(models, tmp_path, "--audio", sound_file, "--frames", 10)


@pytest.fixture(scope="module")
def bunny(real_films, tmp_path_factory):
    """Big Buck Bunny, prepared, and checkpoints of a few steps on it: VQGANs of pictures and sounds, a transformer."""
    root = tmp_path_factory.mktemp("bunny")
    for split in ("train", "test"):
        (root / "data" / split).mkdir(parents=True)
        (root / "data" / split / "bunny.mp4").symlink_to(real_films["bigbuckbunny"])
    prepare_stft(str(root / "data"), workers=1)
    common = ["--data_path", root / "data", "--resolution", 16, "--batch_size", 2, "--num_workers", 0, "--max_steps", 2]
    common += ["--limit_val_batches", 0, "--progress_bar_refresh_rate", 0, "--accelerator", "cpu", "--default_root_dir"]
    vqgan = ["--n_hiddens", 2, "--embedding_dim", 4, "--n_codes", 16, "--norm_type", "batch", "--image_gan_weight", 0,
             "--video_gan_weight", 0]  # fmt: skip
    run("train_vqgan.py", *common, root / "stft", *vqgan, "--downsample", 4, 16, 16, "--stft_data")
    run("train_vqgan.py", *common, root / "vqgan", *vqgan, "--downsample", 4, 8, 8)
    last = "version_0/checkpoints/last.ckpt"
    gpt = ["--n_layer", 1, "--n_head", 1, "--n_embd", 16, "--block_size", 0, "--cond_stage_key", "stft", "--stft_data"]
    gpt += ["--vqvae", root / "vqgan" / last, "--stft_vqvae", root / "stft" / last]
    run("train_transformer.py", *common, root / "gpt", *gpt)
    for name in ("gpt", "vqgan", "stft"):
        os.rename(root / name / last, root / f"{name}.ckpt")
    return root


def bunny_flags(root):
    return [
        "--gpt_ckpt",
        root / "gpt.ckpt",
        "--vqgan_ckpt",
        root / "vqgan.ckpt",
        "--stft_vqgan_ckpt",
        root / "stft.ckpt",
    ]


def test_big_buck_bunny_goes_from_preparation_to_a_model(bunny):
    made = np.load(bunny / "data" / "stft" / "train" / "bunny.npy")
    assert made.shape == (132, 64, 16) and 0.5 < made.max() <= 1 and made[20:100].max((1, 2)).min() > 0
    gpt, sounds = checkpoint.load_transformer(bunny / "gpt.ckpt"), checkpoint.load_vqgan(bunny / "stft.ckpt")
    codes = sounds.encode(sound_pictures(made, 30, 16)[None])
    assert codes.shape == (1, *sounds.latent_shape) == (1, 4, 4, 1) and sounds.config.of_sounds
    assert gpt.config.part("stft").n_cond == codes.numel() and gpt.config.code_offset == 16
    assert sample_codes(gpt, sound=codes, top_k=1).shape == (1, 4, 2, 2)


def test_another_vqgan_of_sounds_is_refused(bunny, models, tmp_path):
    given = [*bunny_flags(bunny)[:-1], models / "stft"]
    with pytest.raises(UserError, match="another VQGAN"):
        run("sample_audio_cond.py", *given, "--save", tmp_path, "--device", "cpu", "--audio", "x.wav")


def test_big_buck_bunny_sounds_in_the_film_as_in_its_source(bunny, real_films, tmp_path):
    source = real_films["bigbuckbunny"]
    run("sample_audio_cond.py", *bunny_flags(bunny), "--save", tmp_path, "--device", "cpu", "--audio", source)
    film = tmp_path / RUN / "generation_0.mp4"
    assert scan(film).fps == 25 and scan(film).n_frames == 136  # the sound is 5.31 seconds, the picture 5.28
    true, heard = read_sound(source, 48000), read_sound(film, 48000)
    same, late = likeness(heard, true)
    assert same > 0.995 and abs(late) <= 8  # samples, of 1920 in a frame
    assert 0.9 < heard.std() / true.std() < 1.1 and abs(len(heard) - len(true)) < 2 * 1024


def test_clips_of_big_buck_bunny_carry_their_part_of_its_sound(bunny, real_films, tmp_path):
    flags = ["--save", tmp_path, "--device", "cpu", "--data_path", bunny / "data", "--n_sample", 2]
    run("sample_audio_cond.py", *bunny_flags(bunny), *flags)
    true = read_sound(real_films["bigbuckbunny"], 48000)[round(16 / 25 * 48000) :][: round(16 / 25 * 48000)]
    for kind in ("generation", "groundtruth"):
        heard = read_sound(tmp_path / RUN / f"{kind}_1.mp4", 48000)
        same, late = likeness(heard[: len(true)], true)
        assert same > 0.99 and abs(late) <= 8
