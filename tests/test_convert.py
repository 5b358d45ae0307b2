"""`tats convert`: the folder gives the same model, and what was left behind is told."""

import json

import pytest
import torch
from reference_cases import REFERENCE
from safetensors.torch import load_file

import tats
from tats import checkpoint, folders
from tats.convert import main, with_flags
from tats.flags import UserError

TINY = REFERENCE / "vqgan_tiny" / "vqgan.ckpt"
FULL = REFERENCE / "vqgan_fullkeys" / "vqgan.ckpt"


def test_a_released_vqgan_loses_critics_and_perceptual_weights(tmp_path, capsys):
    main([str(FULL), str(tmp_path / "small")])
    said = capsys.readouterr().out
    assert "left behind: perceptual weights, 58.86 MB" in said and "left behind: critics" in said
    assert f"{FULL} " in said and " MB -> " in said
    assert checkpoint.fingerprint(tmp_path / "small") == checkpoint.fingerprint(FULL)
    names = load_file(tmp_path / "small" / "model.safetensors")
    assert not any(name.startswith(("image_", "video_", "perceptual_")) for name in names)
    assert json.loads((tmp_path / "small" / "config.json").read_text())["kind"] == "vqgan"


@pytest.mark.parametrize("name", ["gpt_label", "gpt_interp", "gpt_latent_stride", "cond_text", "gpt_spatial"])
def test_a_released_transformer_loses_masks_and_its_copy_of_the_vqgan(tmp_path, capsys, name):
    source = REFERENCE / name / "gpt.ckpt"
    main([str(source), str(tmp_path / "gpt"), "--vqgan_ckpt", str(TINY)])
    said = capsys.readouterr().out
    assert "left behind: a VQGAN inside" in said and "left behind: attention masks" in said
    main(["--ckpt", str(TINY), "--out", str(tmp_path / "vqgan")])
    assert not (tmp_path / "gpt" / "vqgan").exists()
    gpt, vqgan = tats.load_pair(source, TINY)
    gpt2, vqgan2 = tats.load_pair(tmp_path / "gpt", tmp_path / "vqgan")
    assert gpt2.config == gpt.config and checkpoint.fingerprint(gpt2) == checkpoint.fingerprint(gpt)
    assert checkpoint.fingerprint(vqgan2) == checkpoint.fingerprint(vqgan)
    with pytest.raises(UserError, match="another VQGAN"):
        tats.load_pair(tmp_path / "gpt", FULL)


def test_a_vqgan_that_exists_nowhere_else_is_kept_beside(tmp_path, capsys):
    source = REFERENCE / "cond_stft" / "gpt.ckpt"
    main([str(source), str(tmp_path / "gpt"), "--stft_vqgan_ckpt", str(REFERENCE / "cond_stft" / "stft_vqgan.ckpt")])
    said = capsys.readouterr().out
    assert "a VQGAN inside" in said and "(written beside)" in said and "a VQGAN of sounds inside" in said
    gpt, vqgan = tats.load_pair(tmp_path / "gpt", tmp_path / "gpt" / "vqgan")
    assert gpt.config.n_cond == 32 and vqgan.n_codes == 64
    # the copy in the transformer's file is not the file's own: it wins, so it is kept
    same = checkpoint.fingerprint(REFERENCE / "cond_stft" / "stft_vqgan.ckpt") == checkpoint.fingerprint(
        checkpoint.load_sound_vqgan(source, REFERENCE / "cond_stft" / "stft_vqgan.ckpt")
    )
    assert (tmp_path / "gpt" / "stft_vqgan").exists() != same


def test_nothing_is_overwritten_unasked(tmp_path):
    main([str(TINY), str(tmp_path)])
    with pytest.raises(UserError, match="--overwrite"):
        main([str(TINY), str(tmp_path)])
    main([str(FULL), str(tmp_path), "--overwrite"])
    assert checkpoint.fingerprint(tmp_path) == checkpoint.fingerprint(FULL)


def test_a_transformer_with_missing_tensors_is_refused_before_anything_is_written(tmp_path):
    source = tats.load_transformer(REFERENCE / "gpt_uncond" / "gpt.ckpt", TINY)
    state = {f"gpt.{name}": value for name, value in source.state_dict().items() if name != "ln_f.weight"}
    config = json.loads(json.dumps(checkpoint.to_dict(source.config)))
    torch.save({"kind": "gpt", "config": config, "extra": {}, "state_dict": state}, tmp_path / "gpt.ckpt")
    with pytest.raises(UserError, match=r"1 missing \(ln_f\.weight\)"):
        main([str(tmp_path / "gpt.ckpt"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_positions_and_flags_mean_the_same():
    assert with_flags(["a", "b", "--overwrite"]) == ["--ckpt", "a", "--out", "b", "--overwrite"]
    assert with_flags(["--ckpt", "a", "--out", "b"]) == ["--ckpt", "a", "--out", "b"]
    with pytest.raises(UserError, match="--out is required"):
        main(["a"])


def test_tensors_of_every_kind_come_back(tmp_path):
    base = torch.arange(24, dtype=torch.float32)
    tensors = {
        "overlapping": base.as_strided((5, 4), (1, 1)),
        "turned": base.view(4, 6).t(),
        "number": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": base.to(torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "double": base.double(),
    }
    folders.write_tensors(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())


def test_converting_a_folder_again_keeps_what_it_knows(tmp_path):
    main([str(REFERENCE / "gpt_label" / "gpt.ckpt"), str(tmp_path / "a"), "--vqgan_ckpt", str(TINY)])
    main([str(tmp_path / "a"), str(tmp_path / "b")])
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in "ab")
    assert first == second and first["extra"]["vqgan"] == checkpoint.fingerprint(TINY)
