"""Formats of models: our checkpoints, released ones, folders with safetensors."""

import argparse
import json
import random
import struct
from pathlib import Path
from typing import Any

from fuzz import mutate
from fuzz.format import Format, change_one, only
from fuzz.texts import changed_json

VQGAN = {
    "n_codes": 16,
    "embedding_dim": 4,
    "n_hiddens": 2,
    "downsample": (2, 4, 4),
    "resolution": 8,
    "sequence_length": 4,
    "norm_type": "batch",
}
GPT = {
    "n_layer": 1,
    "n_head": 1,
    "n_embd": 8,
    "block_size": 8,
    "unconditional": True,
    "n_codes": 16,
    "latent_shape": (2, 2, 2),
}


def models() -> dict[str, Any]:
    """A VQGAN and a transformer, tiny, with random weights."""
    import torch

    from tats.gpt import config as gpt_config
    from tats.gpt import model as gpt_model
    from tats.vqgan import config as vqgan_config
    from tats.vqgan import model as vqgan_model

    torch.manual_seed(0)
    vqgan = vqgan_model.VQGAN(vqgan_config.VQGANConfig(**VQGAN))
    return {"vqgan": vqgan, "gpt": gpt_model.GPT(gpt_config.GPTConfig(**GPT))}


def seed_ours(folder: Path) -> None:
    """Checkpoints as training writes them, by and large."""
    import torch

    from tats.flags import to_dict

    for kind, model in models().items():
        state = {f"{kind}.{name}": value for name, value in model.state_dict().items()}
        content = {"kind": kind, "config": to_dict(model.config), "extra": {"label_names": ["x"]}, "state_dict": state}
        torch.save({**content, "loops": {}, "step": 3}, folder / f"{kind}.ckpt")


def seed_released(folder: Path) -> None:
    """A checkpoint as the paper's authors wrote theirs: flags in a namespace; in the zip form and in the old one."""
    import torch

    model = models()["vqgan"]
    flags = argparse.Namespace(**VQGAN, image_channels=3, padding_type="replicate", n_res_layers=4)
    content = {"state_dict": dict(model.state_dict()), "hyper_parameters": {"args": flags}, "epoch": 1}
    torch.save(content, folder / "new.ckpt")
    torch.save(content, folder / "old.ckpt", _use_new_zipfile_serialization=False)


def change_checkpoint(folder: Path, rng: random.Random) -> None:
    """One of the checkpoints stays, broken: its pickle, tensors, members or bytes; or it tells other things."""
    import torch

    files = sorted(folder.iterdir())
    kept = rng.choice(files)
    for path in files:
        if path != kept:
            path.unlink()
    if rng.random() < 0.5:
        content = torch.load(kept, weights_only=False)  # our own file of a moment ago
        torch.save(told(content, rng), kept, _use_new_zipfile_serialization=kept.name != "old.ckpt")
    elif kept.name == "old.ckpt":
        kept.write_bytes(mutate.headers(0.2)(kept.read_bytes(), rng))
    else:
        kept.write_bytes(mutate.zipped(kept.read_bytes(), rng, inner_record))


def told(content: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Other settings, other tensors, or other things beside them."""
    import torch

    way, state = rng.randrange(6), content["state_dict"]
    name = rng.choice(list(state))
    if way == 0 and "config" in content:
        content["config"] = mutate.tree(content["config"], rng)
    elif way == 0:
        flags = vars(content["hyper_parameters"]["args"])
        other = mutate.tree(flags, rng)
        content["hyper_parameters"]["args"] = argparse.Namespace(**other) if isinstance(other, dict) else other
    elif way == 1:
        state[name] = rng.choice(
            (
                torch.zeros(0),
                torch.tensor(1.0),
                state[name][None],
                state[name].half(),
                None,
                "x",
                torch.full_like(state[name], -1),
                torch.zeros(2, dtype=torch.cfloat),
            )
        )
    elif way == 2:
        del state[name]
    elif way == 3:
        state[rng.choice(mutate.TEXTS)] = state.pop(name)
    elif way == 4:
        bad = state[name].clone()
        if bad.is_floating_point() and bad.numel():
            bad.view(-1)[0] = rng.choice((float("nan"), float("inf")))
        state[name] = bad
    else:
        content = mutate.tree({key: value for key, value in content.items() if key != "state_dict"}, rng)
        content = content if isinstance(content, dict) else {}
        content.setdefault("state_dict", state)
    return content


def inner_record(name: str, data: bytes, rng: random.Random) -> bytes:
    """A member of a checkpoint: its pickle or a tensor."""
    return mutate.headers(1.0)(data, rng) if name.endswith(".pkl") else mutate.flipped(data, rng)


def parse_checkpoint(folder: Path) -> Any:
    """The pickle, read with tensors and plain values only."""
    from tats import unpickle

    return unpickle.load(only(folder))


def read_checkpoint(folder: Path) -> Any:
    """The model, its fingerprint, and a pass through it."""
    import torch

    from tats import checkpoint

    path = only(folder)
    stored = checkpoint.read_checkpoint(path)
    if stored.kind == "vqgan":
        model = checkpoint.load_vqgan(path)
        model.encode(torch.zeros(1, model.config.image_channels, 4, 8, 8))
    else:
        checkpoint.load_transformer(path)
    return checkpoint.fingerprint(path)


def seed_folder(folder: Path) -> None:
    """What `tats convert` writes."""
    from tats import checkpoint

    checkpoint.save(models()["vqgan"], folder / "vqgan")


def change_folder(folder: Path, rng: random.Random) -> None:
    """The settings, the header of the tensors, or their bytes."""
    way = rng.random()
    if way < 0.4:
        change_one("config.json", changed_json)(folder, rng)
    else:
        change_one("*.safetensors", mutate.flipped if way < 0.6 else changed_tensors)(folder, rng)


def changed_tensors(data: bytes, rng: random.Random) -> bytes:
    """Safetensors with another header, whose length is right."""
    (length,) = struct.unpack("<Q", data[:8])
    head = mutate.tree(json.loads(data[8 : 8 + length]), rng)
    made = json.dumps(head).encode()
    return struct.pack("<Q", len(made)) + made + data[8 + length :]


def parse_folder(folder: Path) -> Any:
    """The header and the settings as JSON."""
    data = only(folder, "*.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), json.loads(only(folder, "config.json").read_bytes())


def read_folder(folder: Path) -> Any:
    """The model of the folder."""
    from tats import checkpoint

    return checkpoint.load_vqgan(folder / "vqgan").n_codes


LOADERS = ("tats/unpickle.py", "tats/checkpoint.py")
FORMATS = [
    Format("checkpoint (ours)", LOADERS, seed_ours, change_checkpoint, parse_checkpoint, read_checkpoint),
    Format(
        "checkpoint (released, zip and old form)",
        (*LOADERS, "tats/published.py"),
        seed_released,
        change_checkpoint,
        parse_checkpoint,
        read_checkpoint,
    ),
    Format(
        "checkpoint (safetensors)",
        ("tats/folders.py", "tats/checkpoint.py"),
        seed_folder,
        change_folder,
        parse_folder,
        read_folder,
    ),
]
