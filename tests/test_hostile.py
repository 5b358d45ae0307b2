"""Broken and hostile files, one kind after the other: each is refused with a reason that names it."""

import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from films import write_film
from fuzz.checkpoints import models, seed_ours, seed_released

from tats import checkpoint, flags, limits
from tats.arrays import read_npy, read_npz
from tats.data.captions import read_texts
from tats.data.config import DataConfig
from tats.data.frames import FrameFolder, read_picture
from tats.data.hdf5 import Table, read_descriptions
from tats.data.index import index_folder
from tats.data.safe_zip import SafeZip
from tats.flags import UserError
from tats.media import frames_of, read_frames
from tats.reader import ReadError, read_all, scan
from tats.sound import read_sound
from tats.vqgan.train_config import VQGANTrainConfig


@pytest.fixture
def small(monkeypatch):
    """Limits for one test, as the environment of a process gives them."""

    def set_to(**values):
        for name, value in values.items():
            monkeypatch.setenv(limits.variable(name), str(value))

    return set_to


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    seed_ours(folder)
    seed_released(folder)
    return folder


@pytest.mark.parametrize("name", ["vqgan.ckpt", "gpt.ckpt", "new.ckpt", "old.ckpt"])
def test_checkpoints_cut_at_every_tenth_of_their_length(checkpoints, tmp_path, name):
    whole, path = (checkpoints / name).read_bytes(), tmp_path / "cut.ckpt"
    checkpoint.read_checkpoint(checkpoints / name)
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(UserError, match=r"cut\.ckpt"):
            checkpoint.fingerprint(path)


def test_safetensors_cut_at_every_tenth_of_their_length(tmp_path):
    checkpoint.save(models()["vqgan"], tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    whole = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(UserError, match="model: damaged"):
            checkpoint.load_vqgan(tmp_path / "model")


def test_checkpoints_of_other_architectures_are_named(checkpoints, tmp_path):
    content = torch.load(checkpoints / "vqgan.ckpt", weights_only=True)
    for change, words in (
        ({"kind": "diffusion"}, "kind 'diffusion'"),
        ({"kind": ["vqgan"]}, "of the kind"),
        ({"config": None}, "settings"),
        ({"config": {**content["config"], "n_hiddens": 4}}, "tensors have another size"),
        ({"config": {**content["config"], "n_hiddens": "many"}}, "takes int"),
        ({"config": {**content["config"], "downsample": [2, 8, 8]}}, "missing"),
        ({"config": {**content["config"], "n_codes": 10**30}}, "settings|size"),
        ({"state_dict": {"resnet.conv1.weight": torch.zeros(3)}}, "missing"),
        ({"state_dict": [1, 2]}, "no 'state_dict'"),
    ):
        torch.save({**content, **change}, tmp_path / "other.ckpt")
        with pytest.raises(UserError, match=words):
            checkpoint.load_vqgan(tmp_path / "other.ckpt")
    torch.save(torch.zeros(3), tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoint.load_vqgan(tmp_path / "other.ckpt")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(checkpoints, tmp_path, number):
    content = torch.load(checkpoints / "vqgan.ckpt", weights_only=True)
    name = "vqgan.decoder.conv_last.conv.weight"
    content["state_dict"][name].view(-1)[3] = number
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match=r"1 of .* hold NaN or infinity \(decoder\.conv_last\.conv\.weight\)"):
        checkpoint.load_vqgan(tmp_path / "bad.ckpt")


def test_views_that_repeat_a_number_do_not_fill_the_memory(checkpoints, tmp_path, small):
    content = torch.load(checkpoints / "vqgan.ckpt", weights_only=True)
    content["config"]["n_codes"] = 500_000
    for name in ("embeddings", "z_avg"):
        content["state_dict"][f"vqgan.codebook.{name}"] = torch.zeros(1).expand(500_000, 4)
    content["state_dict"]["vqgan.codebook.N"] = torch.zeros(1).expand(500_000)
    torch.save(content, tmp_path / "big.ckpt")
    small(max_unpacked_mb=4)
    with pytest.raises(UserError, match=r"big\.ckpt: refused.*--max_unpacked_mb allows 4"):
        checkpoint.load_vqgan(tmp_path / "big.ckpt")


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("../out.png", "leads out"),
        ("a/../../out.png", "leads out"),
        ("/etc/out.png", "absolute"),
        ("C:out.png", "absolute"),
        ("a\\..\\out.png", "backslash"),
        ("a/\x1b.png", "control"),
        ("a//b.png", "empty part"),
        ("./a.png", "'.'"),
    ],
)
def test_zip_members_with_names_that_lead_elsewhere(tmp_path, name, wrong):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("fine/1.png", b"x")
        file.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(UserError, match=rf"a\.zip: refused, because its member .*{wrong}"):
        SafeZip(tmp_path / "a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_members_that_are_links_devices_encrypted_doubled_or_packed_otherwise(tmp_path):
    path = tmp_path / "a.zip"

    def refused(words, *members, kind=zipfile.ZIP_STORED):
        with zipfile.ZipFile(path, "w", kind) as file:
            for name, mode, data in members:
                about = zipfile.ZipInfo(name)
                about.external_attr, about.compress_type = mode << 16, kind
                file.writestr(about, data)
        if words == "encrypted":
            path.write_bytes(
                path.read_bytes().replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")
            )
        with pytest.raises(UserError, match=words):
            SafeZip(path)

    refused("is a link", ("1.png", 0o120777, "/etc/passwd"))
    refused("no plain file", ("1.png", 0o010644, ""))
    refused("encrypted", ("1.png", 0o100644, "x"))
    refused("stands twice", ("1.png", 0, "x"), ("1.png", 0, "y"))
    refused("packed in the way 12", ("1.png", 0, "x"), kind=zipfile.ZIP_BZIP2)
    refused("packed in the way 14", ("1.png", 0, "x"), kind=zipfile.ZIP_LZMA)
    refused("would grow", ("1.png", 0, bytes(5 << 20)), kind=zipfile.ZIP_DEFLATED)
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match="no zip file"):
        SafeZip(path)


def test_zip_members_that_lie_about_their_size(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("1.png", b"0123456789" * 1000)
    whole = path.read_bytes()
    for said in (100, 20_000):
        path.write_bytes(whole.replace(struct.pack("<I", 10_000), struct.pack("<I", said)))
        archive = SafeZip(path)
        with pytest.raises(ReadError, match=r"a\.zip: 1\.png"):
            archive.read("1.png")
    path.write_bytes(whole)
    assert SafeZip(path).read("1.png") == b"0123456789" * 1000


def test_a_bomb_of_a_zip_is_no_data_set(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/1.png", bytes(8 << 20))
    with pytest.raises(UserError, match=r"would grow from .* more than 200 times"):
        FrameFolder(DataConfig(str(tmp_path / "a.zip"), image_folder=True), "train")


def png(width, height):
    """A picture that announces a size and has ten bytes."""
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("reader", [read_picture, read_frames])
def test_pictures_with_lying_sizes(tmp_path, reader, small):
    path = tmp_path / "1.png"
    path.write_bytes(png(200_000, 200_000))
    with pytest.raises(UserError, match=r"1\.png.* 200000x200000 has 40,000,000,000 pixels, --max_pixels allows"):
        reader(path)
    path.write_bytes(png(20, 20))
    with pytest.raises(UserError, match=r"1\.png"):  # within the limit, and cut short
        reader(path)
    small(max_pixels=399)
    with pytest.raises(UserError, match="20x20 has 400 pixels, --max_pixels allows 399"):
        reader(path)


def test_videos_beyond_the_limits_are_named_and_flags_raise_them(tmp_path, small):
    path = write_film(tmp_path / "a.mp4", n_frames=25)  # 64x48, one second
    readers = {
        "scan": scan,
        "whole": lambda path: scan(path, decode_all=True),
        "all": lambda path: list(read_all(path)),
        "frames": lambda path: list(frames_of(path)),
    }
    for values, words in (
        ({"max_pixels": 3071}, "64x48 has 3,072 pixels, --max_pixels allows 3,071"),
        ({"max_frames": 24}, "25 frames or more, --max_frames allows 24"),
    ):
        small(max_pixels=3072, max_frames=25)
        for reader in readers.values():
            reader(path)
        small(**values)
        for name, reader in readers.items():
            if name != "all" or "max_pixels" in values:
                with pytest.raises(UserError, match=words):
                    reader(path)


def test_limits_of_seconds_hold_for_films_and_sounds(tmp_path, small):
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(100)
        file.writeframes(bytes(1000))  # five seconds
    film = write_film(tmp_path / "a.mp4", n_frames=60)
    small(max_seconds=6)
    scan(film)
    read_sound(tmp_path / "a.wav", 8000)
    small(max_seconds=2)
    with pytest.raises(ReadError, match=r"lasts 2\.4 seconds, --max_seconds allows 2"):
        scan(film)
    with pytest.raises(UserError, match=r"lasts 5\.0 seconds, --max_seconds allows 2"):
        read_sound(tmp_path / "a.wav", 8000)


def test_an_index_does_not_keep_what_a_raised_limit_allows(tmp_path, small):
    write_film(tmp_path / "a.mp4", n_frames=4)
    small(max_pixels=100)
    assert "--max_pixels" in index_folder(tmp_path, ["a.mp4"])[0].problem
    small(max_pixels=10_000)
    assert index_folder(tmp_path, ["a.mp4"])[0].timeline is not None


def test_limits_are_flags_of_every_command(monkeypatch, tmp_path):
    for name in limits.LIMITS:
        monkeypatch.delenv(limits.variable(name), raising=False)
    config = flags.parse(VQGANTrainConfig, ["--max_pixels", "1234"])
    assert limits.limit("max_pixels") == 1234
    flags.save_yaml(config, tmp_path / "run.yaml")
    assert "max_pixels: 1234" in (tmp_path / "run.yaml").read_text()
    monkeypatch.delenv("TATS_MAX_PIXELS")
    flags.parse(VQGANTrainConfig, ["--config", str(tmp_path / "run.yaml")])
    assert limits.limit("max_pixels") == 1234
    with pytest.raises(UserError, match="--max_frames must be at least 1"):
        flags.parse(VQGANTrainConfig, ["--max_frames", "0"])
    monkeypatch.setenv("TATS_MAX_FRAMES", "many")
    with pytest.raises(UserError, match="TATS_MAX_FRAMES=many"):
        limits.limit("max_frames")
    monkeypatch.delenv("TATS_MAX_FRAMES")
    monkeypatch.delenv("TATS_MAX_PIXELS")


@pytest.mark.parametrize("content", ["#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "ffconcat version 1.0\nfile /etc/passwd\n"])
def test_playlists_that_lead_to_other_files_are_no_videos(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_text(content)
    for reader in (scan, read_frames, lambda path: read_sound(path, 8000)):
        with pytest.raises(UserError, match=r"a\.mp4"):
            reader(path)


@pytest.mark.parametrize("number", [0, 1])
def test_a_frame_of_an_animation_that_is_huge_takes_no_memory(tmp_path, number):
    from PIL import Image

    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], disposal=2)
    data = bytearray((tmp_path / "a.gif").read_bytes())
    at = data.index(b"\x2c\0\0\0\0\x20\0\x18\0")
    at = data.index(b"\x2c", at + 10) if number else at
    assert data[at + 5 : at + 9] == b"\x20\0\x18\0"  # 32 x 24
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "a.gif").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.gif cannot be read: a frame of it has more pixels than --max_pixels"):
        read_frames(tmp_path / "a.gif")


def test_text_of_arrays_that_is_none_is_refused(tmp_path):
    text = np.array(["abc"]).view(np.uint32) | np.uint32(0x7F000000)
    np.savez(tmp_path / "a.npz", text.view("<U3"))
    np.save(tmp_path / "a.npy", text.view("<U3"))
    for reader, name in ((read_npz, "a.npz"), (read_npy, "a.npy")):
        with pytest.raises(UserError, match="characters that there are none of"):
            reader(tmp_path / name)


def test_postscript_is_no_picture(tmp_path):
    path = tmp_path / "1.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    with pytest.raises(ReadError, match="cannot identify"):
        read_picture(path)


@pytest.mark.parametrize(
    "text",
    [
        "batch_size: !!python/object/apply:os.system ['touch HIT']",
        "batch_size: !!python/name:os.system",
        "!!python/object/new:tuple [1]",
        "batch_size: &a [*a]",
        "a: [b",
        "batch_size: !unknown 3",
        "- 1\n- 2",
        "? [a]\n: 1",
        "\x00",
        "batch_size: 1\x07",
        "[" * 5000,
    ],
)
def test_settings_with_tags_or_broken_are_refused_and_nothing_is_run(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=r"run\.yaml"):
        flags.parse(VQGANTrainConfig, ["--config", str(tmp_path / "run.yaml")])
    assert not (tmp_path / "HIT").exists()


def test_captions_with_control_characters_ten_megabytes_or_no_unicode(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"a.mp4": ["a \x1b[31mred\x00 circle\r\n", "b\ud800c"]}))
    assert read_texts(path, ["a.mp4"]) == [["a  [31mred  circle  ", "b c"]]
    path.write_text(json.dumps({"a.mp4": "word " * 2_000_000}))
    with pytest.raises(UserError, match=r"captions\.json: a text of 10,000,000 bytes; captions have at most 5,000"):
        read_texts(path, ["a.mp4"])
    table = tmp_path / "captions.csv"
    table.write_text("file,caption\na.mp4," + "y" * 6000 + "\n")
    with pytest.raises(UserError, match=r"captions\.csv: a text of 6,000 bytes"):
        read_texts(table, ["a.mp4"])
    lines = tmp_path / "train_text_description.txt"
    lines.write_text("one\ttwo\x0bthree\n" + "z" * 10_000_000)
    with pytest.raises(UserError, match="a text of 10,000,000 bytes"):
        read_descriptions(lines)
    for file in (path, table, lines):
        file.write_bytes(b'{"a.mp4": "\xff\xfe"}')
        with pytest.raises(UserError, match=file.name):
            read_descriptions(file) if file is lines else read_texts(file, ["a.mp4"])


def test_tables_that_lie_elsewhere_or_announce_what_they_do_not_hold(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"

    def refused(words, **tables):
        with h5py.File(path, "w") as file:
            for name, table in {"data": np.zeros((4, 2, 2, 3), np.uint8), "idx": np.array([0]), **tables}.items():
                if callable(table):
                    table(file, f"train_{name}")
                elif table is not None:
                    file[f"train_{name}"] = table
        with pytest.raises(UserError, match=words):
            Table(path, "train", 4)

    refused("no table train_idx", idx=None)
    refused("no table, or a link", data=lambda file, name: file.create_group(name))
    refused(
        "no table, or a link", data=lambda file, name: file.__setitem__(name, h5py.ExternalLink("/etc/passwd", "x"))
    )
    refused("no table, or a link", data=lambda file, name: file.__setitem__(name, h5py.SoftLink(f"/{name}")))
    refused(
        "lies in other files",
        data=lambda file, name: file.create_dataset(name, (4, 2, 2, 3), "u1", external="/etc/passwd"),
    )
    refused("announces", idx=lambda file, name: file.create_dataset(name, (10**9,), "i8", chunks=(1000,)))
    refused(
        "in pieces of",
        data=lambda file, name: file.create_dataset(name, (90000, 300, 300, 3), "u1", chunks=(60000, 300, 300, 1)),
    )
    refused("integers of 4 dimensions", data=np.zeros((4, 2, 2, 3)))
    refused("its entry 1 is 9", idx=np.array([0, 9]))


def test_arrays_that_announce_more_than_they_hold(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    data = (tmp_path / "a.npy").read_bytes()
    for shape in ("(2, 4)", "(2000000000000, 3)", "(-2, 3)", "(2, 3.)", "'xyz'"):
        (tmp_path / "b.npy").write_bytes(data.replace(b"(2, 3), }" + b" " * (len(shape) - 6), shape.encode() + b", }"))
        with pytest.raises(UserError, match=r"b\.npy"):
            read_npy(tmp_path / "b.npy")
        with zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
            file.write(tmp_path / "b.npy", "a.npy")
        with pytest.raises(UserError, match=r"b\.npz"):
            read_npz(tmp_path / "b.npz")
