"""Checkpoints: released files, our own, folders. What loads, what is refused in which words, and that no file runs."""

import argparse
import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from reference_cases import REFERENCE, Case

import tats
from tats import checkpoint, unpickle
from tats.flags import UserError, to_dict
from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT
from tats.vqgan.config import VQGANConfig
from tats.vqgan.discriminator import Discriminator
from tats.vqgan.lpips import LPIPS
from tats.vqgan.model import VQGAN

TINY = REFERENCE / "vqgan_tiny" / "vqgan.ckpt"
SOUND = REFERENCE / "cond_stft" / "stft_vqgan.ckpt"
VQGAN_CASES = sorted(path.parent.name for path in REFERENCE.glob("*/vqgan.ckpt"))
GPT_CASES = sorted(path.parent.name for path in REFERENCE.glob("*/gpt.ckpt"))
SMALL_VQGAN = VQGANConfig(
    embedding_dim=4, n_codes=6, n_hiddens=2, downsample=(1, 2, 2), norm_type="batch", resolution=8, sequence_length=2
)
SMALL_GPT = GPTConfig(
    n_layer=1,
    n_head=2,
    n_embd=8,
    block_size=8,
    n_codes=6,
    code_offset=2,
    latent_shape=(2, 2, 2),
    label_names=["a", "b"],
)


def stored_state(path):
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)["state_dict"]


def same_tensors(model, state, prefix=""):
    return all(torch.equal(value, state[prefix + name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("architecture", ["vqgan", "gpt", "image_critic", "video_critic", "lpips"])
def test_parameter_names_and_sizes_are_those_of_released_files(architecture):
    """The lists follow from the published templates; a renamed parameter would orphan every released checkpoint."""
    lines = (Path(__file__).parent / "architectures" / f"{architecture}.txt").read_text().splitlines()
    expected = {line.split()[0]: tuple(map(int, line.split()[1:])) for line in lines}
    with torch.device("meta"):
        model = {
            "vqgan": lambda: VQGAN(
                VQGANConfig(n_codes=16384, n_hiddens=32, downsample=(4, 8, 8), norm_type="batch", resolution=128)
            ),
            "gpt": lambda: GPT(
                GPTConfig(n_layer=24, n_head=16, n_embd=1024, block_size=1024, n_codes=16384, unconditional=True)
            ),
            "image_critic": lambda: Discriminator(2, 3, 64, 3),
            "video_critic": lambda: Discriminator(3, 3, 64, 3),
            "lpips": LPIPS,
        }[architecture]()
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected


@pytest.mark.parametrize("name", VQGAN_CASES)
def test_released_vqgans_load_with_their_settings(name):
    case = Case(name)
    model = tats.load_vqgan(case.file("vqgan.ckpt"))
    assert not model.training and same_tensors(model, unpickle.load(case.file("vqgan.ckpt"))["state_dict"])
    wanted = case.meta.get("config") or Case("vqgan_tiny").meta["config"]
    for setting in ("n_hiddens", "embedding_dim", "n_codes", "image_channels", "norm_type", "resolution"):
        if setting in wanted:
            assert getattr(model.config, setting) == wanted[setting], setting
    assert list(model.config.downsample) == wanted.get("downsample", list(model.config.downsample))
    assert model.config.padding_type == (wanted.get("padding_type") or "replicate")


@pytest.mark.parametrize("name", GPT_CASES)
def test_released_transformers_load_with_their_settings(name):
    case = Case(name)
    sound = SOUND if name == "cond_stft" else None
    gpt = tats.load_transformer(case.file("gpt.ckpt"), TINY, sound)
    published, config = case.meta["config"]["gpt"], gpt.config
    for setting in ("n_layer", "n_head", "n_embd", "block_size", "n_unmasked", "sample_every_n_latent_frames"):
        assert getattr(config, setting) == published[setting], setting
    offset = case.meta["config"].get("cond_stage_vocab_size", 0)
    assert config.code_offset == offset
    assert config.vocabulary == case.meta["config"].get("gpt_vocab_size", 64 + offset)
    assert config.n_cond == case.meta["config"].get("cond_tokens", 1)
    t, h, w = config.latent_shape
    assert config.n_cond + t * h * w - 1 <= config.block_size
    assert config.unconditional == published["unconditional"]
    assert config.key == {"cond_text": "text", "cond_stft": "stft", "gpt_label": "label"}.get(name, "none")
    state = stored_state(case.file("gpt.ckpt"))
    assert not gpt.training and same_tensors(gpt, state, "transformer.")
    assert to_dict(tats.load_transformer(case.file("gpt.ckpt")).config) == to_dict(config), "without the VQGAN"


def test_the_vqgan_inside_a_released_transformer_wins(tmp_path, capsys):
    path = REFERENCE / "gpt_label" / "gpt.ckpt"
    state = stored_state(path)
    _, vqgan = tats.load_pair(path, TINY)
    assert same_tensors(vqgan, state, "first_stage_model.")
    content = unpickle.load(TINY)
    content["state_dict"]["codebook.embeddings"] = torch.zeros(64, 8)
    torch.save(content, tmp_path / "other.ckpt")
    _, vqgan = tats.load_pair(path, tmp_path / "other.ckpt")
    assert same_tensors(vqgan, state, "first_stage_model.")
    assert same_tensors(tats.load_vqgan(path), state, "first_stage_model.")
    assert "downsample 2 2 2" in capsys.readouterr().err
    sound = checkpoint.load_sound_vqgan(REFERENCE / "cond_stft" / "gpt.ckpt", SOUND)
    assert same_tensors(sound, stored_state(REFERENCE / "cond_stft" / "gpt.ckpt"), "cond_stage_model.")


def test_no_tensor_of_a_model_shares_storage_or_overlaps():
    gpt = tats.load_transformer(REFERENCE / "gpt_vtokens" / "gpt.ckpt")  # embeddings are overlapping views in the file
    kernels, tensors = [], list(gpt.state_dict().values())
    for value in tats.load_vqgan(TINY).state_dict().values():
        (kernels if value.ndim == 5 else tensors).append(value)
    assert all(value.is_contiguous() for value in tensors)
    assert kernels and all(value.is_contiguous(memory_format=torch.channels_last_3d) for value in kernels)
    tensors += kernels
    assert len({value.untyped_storage().data_ptr() for value in tensors}) == len(tensors)
    assert all(value.untyped_storage().nbytes() == value.numel() * value.element_size() for value in tensors)


def test_files_of_the_old_trainer_load_with_stand_ins_for_its_names(capsys):
    case = Case("ckpt_legacy")
    model = tats.load_vqgan(case.file("vqgan.ckpt"))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    foreign = [name for name in case.meta["globals_in_pickle"] if name.startswith("pytorch_lightning.")]
    assert len(foreign) == 2 and all(name in said for name in foreign)
    other = tats.load_vqgan(TINY)
    case.check_fact("settings", to_dict(model.config), to_dict(other.config))
    names = sorted(other.state_dict())
    equal = [name for name in names if torch.equal(model.state_dict()[name], other.state_dict()[name])]
    case.check_fact("state_dict", equal, names)


class Runs:
    """Pickles as a call of a function, as hostile files do."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("where", ["callbacks", "state_dict", "hyper_parameters"])
def test_a_hostile_file_runs_nothing_and_is_refused_by_name(tmp_path, where):
    touched = tmp_path / "touched"
    content = unpickle.load(TINY)
    content[where] = {"x": Runs(open, str(touched), "w"), **content[where]}
    torch.save(content, tmp_path / "hostile.ckpt")
    with pytest.raises(UserError, match=r"(?s)refused.*io\.open.*Nothing was executed"):
        tats.load_vqgan(tmp_path / "hostile.ckpt")
    assert not touched.exists()


def test_hostile_names_hidden_from_the_list_or_below_the_trainer_run_nothing(tmp_path):
    touched = tmp_path / "touched"
    plain = pickle.dumps(Runs(open, str(touched), "w"), protocol=2)  # no archive: the oldest form
    (tmp_path / "old.ckpt").write_bytes(plain)
    with pytest.raises(UserError):
        unpickle.load(tmp_path / "old.ckpt")
    # a name below the trainer that, taken apart, would lead to the real os.system
    command = f"touch {touched}".encode()
    call = b"cpytorch_lightning\nos.system\nX" + len(command).to_bytes(4, "little") + command + b"\x85R."
    with zipfile.ZipFile(tmp_path / "below.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + call)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")
    found = unpickle.load(tmp_path / "below.ckpt")
    assert type(found).__name__ == "system" and not vars(found) and not touched.exists()


def test_damaged_and_foreign_files_get_one_clear_line(tmp_path):
    whole = TINY.read_bytes()
    cases = {
        "cut.ckpt": whole[: len(whole) // 2],
        "empty.ckpt": b"",
        "text.ckpt": b"not a checkpoint at all\n",
        "page.ckpt": b"<!DOCTYPE html><html>quota exceeded</html>",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"not a checkpoint, or cut short|refused"):
            tats.load_vqgan(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "zip.ckpt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="not a checkpoint"):
        tats.load_vqgan(tmp_path / "zip.ckpt")
    for value in (torch.zeros(3), {"state_dict": 3}, [1]):
        torch.save(value, tmp_path / "other.ckpt")
        with pytest.raises(UserError, match="no checkpoint of a VQGAN or a transformer"):
            tats.load_vqgan(tmp_path / "other.ckpt")
    torch.save({"state_dict": {"layer.weight": torch.zeros(1)}}, tmp_path / "bare.ckpt")
    with pytest.raises(UserError, match="holds no settings"):
        tats.load_vqgan(tmp_path / "bare.ckpt")


def test_the_wrong_kind_of_model_is_named(tmp_path):
    with pytest.raises(UserError, match="holds a VQGAN, here belongs a transformer"):
        tats.load_transformer(TINY)
    with pytest.raises(UserError, match="holds a transformer and no VQGAN"):
        tats.load_vqgan(REFERENCE / "gpt_vtokens" / "gpt.ckpt")
    content = unpickle.load(TINY)
    content["state_dict"] = OrderedDict({"conv1.weight": torch.zeros(1)})
    torch.save(content, tmp_path / "resnet.ckpt")
    with pytest.raises(UserError, match=r"neither a VQGAN .* nor a transformer .*conv1\.weight"):
        tats.load_vqgan(tmp_path / "resnet.ckpt")


def edited(tmp_path, change):
    content = unpickle.load(TINY)
    change(content["state_dict"], content["hyper_parameters"]["args"])
    torch.save(content, tmp_path / "edited.ckpt")
    return tmp_path / "edited.ckpt"


def test_missing_and_left_over_tensors_are_named(tmp_path):
    def change(state, args):
        del state["decoder.conv_last.conv.bias"]
        state["decoder.extra.weight"] = torch.zeros(1)

    with pytest.raises(UserError, match=r"1 missing \(decoder\.conv_last\.conv\.bias\), 1 left over \(decoder\.extra"):
        tats.load_vqgan(edited(tmp_path, change))

    def resize(state, args):
        state["decoder.conv_last.conv.bias"] = torch.zeros(5)

    with pytest.raises(UserError, match=r"another size.*conv_last\.conv\.bias is \(5,\), wanted \(3,\)"):
        tats.load_vqgan(edited(tmp_path, resize))


def test_sizes_come_from_the_tensors_and_contradictions_are_said(tmp_path, capsys):
    def change(state, args):
        args.n_codes, args.norm_type = 999, "group"

    model = tats.load_vqgan(edited(tmp_path, change))
    said = capsys.readouterr().err
    assert model.n_codes == 64 and "n_codes 999, the file's tensors 64: taken 64" in said
    assert model.config.norm_type == "batch" and "norm_type group" in said

    def shrink(state, args):
        args.downsample = [4, 8, 8]

    with pytest.raises(UserError, match=r"--downsample 4 8 8, but the file has 1 shrinking blocks"):
        tats.load_vqgan(edited(tmp_path, shrink))

    def forget(state, args):
        del args.downsample

    with pytest.raises(UserError, match="lack 'downsample'"):
        tats.load_vqgan(edited(tmp_path, forget))


def test_contradictions_of_a_transformer_are_said_once(tmp_path, capsys):
    content = unpickle.load(REFERENCE / "gpt_label" / "gpt.ckpt")
    content["hyper_parameters"]["args"].n_layer = 7
    content["hyper_parameters"]["args"].class_cond_dim = 9
    torch.save(content, tmp_path / "gpt.ckpt")
    gpt, _ = tats.load_pair(tmp_path / "gpt.ckpt", TINY)
    said = capsys.readouterr().err
    assert gpt.config.n_layer == 2 and said.count("n_layer 7, the file's tensors 2: taken 2") == 1
    assert gpt.config.code_offset == 5 and said.count("class_cond_dim 9, the file's tensors 5: taken 5") == 1
    assert said.count("\n") == 2


def test_a_transformer_and_a_vqgan_that_do_not_fit_are_refused():
    path = REFERENCE / "gpt_label" / "gpt.ckpt"
    gpt = tats.load_transformer(path, REFERENCE / "vqgan_batchnorm" / "vqgan.ckpt")  # 4x8x8: other pictures
    assert gpt.config.n_codes == 64
    with pytest.raises(UserError, match="shrinking blocks"):
        tats.load_pair(path, REFERENCE / "vqgan_batchnorm" / "vqgan.ckpt")


def ours(tmp_path, model, name, extra=None):
    """A file as our training writes it: the model under its kind, critics beside it, the trainer's own entries."""
    state = {f"{name}.{key}": value for key, value in model.state_dict().items()}
    content = {
        "kind": name,
        "config": to_dict(model.config),
        "extra": extra or {},
        "state_dict": {**state, "image_discriminator.model0.0.weight": torch.zeros(1)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        "epoch": 1,
    }
    torch.save(content, tmp_path / f"{name}.ckpt")
    return tmp_path / f"{name}.ckpt"


def test_our_checkpoints_and_folders_give_the_same_model(tmp_path):
    torch.manual_seed(0)
    vqgan, gpt = VQGAN(SMALL_VQGAN).eval(), GPT(SMALL_GPT).eval()
    vqgan_file = ours(tmp_path, vqgan, "vqgan")
    gpt_file = ours(tmp_path, gpt, "gpt", {"vqgan": checkpoint.fingerprint(vqgan)})
    tats.save(gpt, tmp_path / "gpt")
    tats.save(vqgan, tmp_path / "vqgan")
    video = torch.rand(1, 3, 2, 8, 8) - 0.5
    for g, v in ((gpt_file, vqgan_file), (tmp_path / "gpt", tmp_path / "vqgan" / "model.safetensors")):
        gpt2, vqgan2 = tats.load_pair(g, v)
        assert gpt2.config == gpt.config and vqgan2.config == vqgan.config
        assert torch.equal(vqgan2.encode(video), vqgan.encode(video))
        assert torch.equal(gpt2(torch.zeros(1, 8, dtype=torch.long)), gpt(torch.zeros(1, 8, dtype=torch.long)))
        assert checkpoint.fingerprint(g) == checkpoint.fingerprint(gpt)
    assert list(checkpoint.read_checkpoint(vqgan_file).others) == ["image_discriminator.model0.0.weight"]


def test_another_vqgan_than_the_trained_one_is_refused(tmp_path):
    torch.manual_seed(0)
    vqgan = VQGAN(SMALL_VQGAN).eval()
    gpt_file = ours(tmp_path, GPT(SMALL_GPT), "gpt", {"vqgan": checkpoint.fingerprint(vqgan)})
    vqgan.decoder.conv_last.conv.bias.data += 1
    with pytest.raises(UserError, match="another VQGAN"):
        tats.load_pair(gpt_file, ours(tmp_path, vqgan, "vqgan"))
    with pytest.raises(UserError, match=r"6 codes.*has 64"):
        tats.load_pair(ours(tmp_path, GPT(SMALL_GPT), "gpt"), TINY)


def test_the_fingerprint_ignores_counts_and_sees_weights_and_settings():
    torch.manual_seed(0)
    vqgan = VQGAN(SMALL_VQGAN)
    first = checkpoint.fingerprint(vqgan)
    vqgan.codebook.N += 1
    assert checkpoint.fingerprint(vqgan) == first and len(first) == 16
    vqgan.codebook.embeddings[0] += 1
    assert checkpoint.fingerprint(vqgan) != first


def test_a_damaged_folder_is_named(tmp_path):
    tats.save(VQGAN(SMALL_VQGAN), tmp_path / "vqgan")
    (tmp_path / "vqgan" / "config.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        tats.load_vqgan(tmp_path / "vqgan")
    (tmp_path / "vqgan" / "config.json").unlink()
    with pytest.raises(UserError, match=r"lacks config\.json"):
        tats.load_vqgan(tmp_path / "vqgan")


def test_a_model_outlives_its_file(tmp_path):
    path = tmp_path / "vqgan.ckpt"
    path.write_bytes(TINY.read_bytes())
    model = tats.load_vqgan(path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with path.open("r+b") as file:  # written anew in place, as a training run does
        file.write(bytes(path.stat().st_size))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_older_torch_files_load_without_an_archive(tmp_path):
    content = unpickle.load(TINY)
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "old.ckpt").write_bytes(buffer.getvalue())
    assert same_tensors(tats.load_vqgan(tmp_path / "old.ckpt"), content["state_dict"])
