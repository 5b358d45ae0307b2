"""The transformer against the published one: logits, losses, gradients, one optimizer step, conditions."""

import numpy as np
import pytest
import torch
from reference_cases import Case

from tats import checkpoint
from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT, published_mask
from tats.gpt.objective import accuracy, crop_places, loss, new_codes, predict
from tats.gpt.train import parameter_groups
from tats.gpt.train_config import learning_rate

BASE = ["gpt_label", "gpt_uncond", "gpt_latent_stride"]
FROM_PIXELS = [*BASE, "gpt_interp", "gpt_spatial", "cond_text", "cond_stft"]


def tensor(case, name):
    return torch.from_numpy(case.inputs[name])


def models(case):
    sound = case.file("stft_vqgan.ckpt") if (case.path / "stft_vqgan.ckpt").exists() else None
    return checkpoint.load_pair(case.file("gpt.ckpt"), case.file("vqgan.ckpt"), stft_vqgan=sound)


def batch(case):
    """Model, codes, condition and places of the training batch of a case."""
    gpt, vqgan = models(case)
    video = tensor(case, "video_u8").float() / 255 - 0.5
    codes = vqgan.encode(video)[:, :: gpt.config.stride]
    if "label" in case.inputs:
        cond = tensor(case, "label")[:, None]
    elif "text" in case.inputs:
        cond = tensor(case, "text")
    elif "stft_u8" in case.inputs:
        sound = checkpoint.load_sound_vqgan(case.file("gpt.ckpt"), case.file("stft_vqgan.ckpt"))
        cond = sound.encode(tensor(case, "stft_u8").float() / 255 * 2 - 1).flatten(1)
    else:
        cond = torch.zeros(len(codes), 1, dtype=torch.long)
    places = crop_places(tuple(codes.shape[1:]), tensor(case, "cbox")) if "cbox" in case.inputs else None
    return gpt, codes, cond, places


@pytest.mark.parametrize("name", FROM_PIXELS)
def test_codes_condition_loss_and_accuracy_of_a_batch(name):
    case = Case(name)
    gpt, codes, cond, places = batch(case)
    with torch.no_grad():
        logits, target = predict(gpt, cond, codes, places=places)
    if "z_indices" in case.outputs:
        case.check("z_indices", codes.flatten(1))
        case.check("c_indices", cond)
    case.check("forward_target", target)
    if name == "cond_text":
        case.check("forward_logits_video_part", logits[..., gpt.config.code_offset :])
        case.check("forward_logits_text_stride997", logits[..., : gpt.config.code_offset : 997])
    else:
        case.check("forward_logits", logits)
    case.check("loss", loss(logits, target))
    for key, value in zip(("acc1", "acc5"), accuracy(logits, target)):
        case.check(key, value)


@pytest.mark.parametrize("name", BASE)
def test_logits_of_tokens_and_of_explicit_embeddings(name):
    case = Case(name)
    gpt, _ = models(case)
    tokens, embeddings = tensor(case, "tokens"), tensor(case, "embeddings")
    with torch.no_grad():
        case.check("logits_full_sample0", gpt(tokens)[:1])
        short = gpt(tokens[:, :-5], torch.arange(tokens.shape[1] - 5))
        case.check("logits_short_last8", short[:, -8:])
        case.check("loss_short", loss(short, tensor(case, "targets_short")))
        positions = torch.arange(embeddings.shape[1] + 10)
        case.check("logits_with_embeddings", gpt(tokens[:, :10], positions, embeddings=embeddings))


@pytest.mark.parametrize("name", BASE)
def test_replaced_codes_change_what_is_seen_and_not_what_should_be_found(name):
    case = Case(name)
    gpt, codes, cond, _ = batch(case)
    with torch.no_grad():
        logits, target = predict(gpt, cond, codes, keep=tensor(case, "pkeep_mask"), random=tensor(case, "pkeep_random"))
    case.check("pkeep_forward_logits_every4", logits[:, ::4])
    case.check("forward_target", target)


@pytest.mark.parametrize("name", BASE)
def test_gradients_and_one_step_of_the_optimizer(name):
    case = Case(name)
    gpt, codes, cond, _ = batch(case)
    gpt.train()
    logits, target = predict(gpt, cond, codes)
    loss(logits, target).backward()
    parameters = dict(gpt.named_parameters())
    names = case.meta["param_names"]
    assert sorted(names) == sorted(parameters)
    case.check("gradnorm_per_param", torch.stack([parameters[name].grad.norm() for name in names]))
    torch.optim.AdamW(parameter_groups(gpt), lr=1e-3, betas=(0.9, 0.95)).step()
    after = [torch.stack([parameters[name].sum(), parameters[name].norm()]) for name in names]
    case.check("param_sum_norm_after_adamw_lr1e-3", torch.stack(after))


def test_anchors_make_the_published_mask():
    case = Case("gpt_interp")
    gpt, _ = models(case)
    config = gpt.config
    case.check("mask", published_mask(config.block_size, config.n_unmasked))
    for key in (key for key in case.inputs if key.startswith("maskcfg_")):
        size, u = (int(x) for x in case.inputs[key])
        case.check(f"mask_N{size}_u{u}", published_mask(size, u))


def test_only_the_codes_between_count_when_frames_are_filled_in():
    case = Case("gpt_interp")
    gpt, codes, cond, _ = batch(case)
    with torch.no_grad():
        logits, target = predict(gpt, cond, codes)
        other = codes.clone()
        other[:, 1:-1] = (other[:, 1:-1] + 1) % gpt.config.n_codes
        changed, _ = predict(gpt, cond, other)
    new = new_codes(gpt, target.shape[1])
    assert (new.start, new.stop) == (16, 64)
    same = (logits == changed).all(-1).all(0)
    assert same[:17].all() and not same[17:64].any() and same[65:].all()


def test_places_of_cropped_windows():
    case = Case("gpt_spatial")
    gpt, _ = models(case)
    tokens, boxes, times = tensor(case, "tokens"), tensor(case, "cbox"), tensor(case, "tbox")
    t, side = 2, 4
    with torch.no_grad():
        logits = gpt(tokens, places=crop_places((t, side, side), boxes, times))
        case.check("logits_cbox_tbox", logits)
        logits = gpt(tokens, places=crop_places((t, side, side), boxes))
    case.check("logits_cbox_sample0", logits[:1])


def test_codes_computed_beforehand_with_places():
    case = Case("gpt_vtokens")
    gpt = checkpoint.load_transformer(case.file("gpt.ckpt"))
    tokens, boxes, times = tensor(case, "tokens"), tensor(case, "cbox"), tensor(case, "tbox")
    codes = tensor(case, "video_tokens")
    shape = tuple(codes.shape[1:])
    with torch.no_grad():
        logits = gpt(tokens, places=crop_places(shape, boxes, times))
        case.check("logits_cbox_tbox_stride197", logits[:1, :, ::197])
        cond = torch.zeros(len(codes), 1, dtype=torch.long)
        logits, target = predict(gpt, cond, codes, places=crop_places(shape, boxes))
    case.check("forward_logits_stride197", logits[-1:, :, ::197])
    case.check("forward_target", target)
    case.check("loss", loss(logits, target))
    for key, value in zip(("acc1", "acc5"), accuracy(logits, target)):
        case.check(key, value)


def test_parameter_groups_and_learning_rate_are_the_published_ones():
    case = Case("optimizer")
    for name in ("base", "vtokens_pos"):
        expected = case.meta["expected"][name]
        args = expected["args"]
        side = args.get("resolution", 0)
        config = GPTConfig(
            n_layer=args["n_layer"],
            n_head=2,
            n_embd=8,
            block_size=16,
            n_codes=5,
            unconditional=True,
            places_shape=(args["sequence_length"], side, side) if args.get("vtokens_pos") else None,
        )
        gpt = GPT(config)
        names = {id(parameter): name for name, parameter in gpt.named_parameters()}
        optimizer = torch.optim.AdamW(parameter_groups(gpt), lr=0.123, betas=(0.9, 0.95))
        for number, (group, wanted) in enumerate(zip(optimizer.param_groups, expected["groups"], strict=True)):
            case.check_fact(f"{name}/{number}/params", [names[id(p)] for p in group["params"]], wanted["params"])
            for key in ("weight_decay", "lr", "eps"):
                case.check_fact(f"{name}/{number}/{key}", group[key], wanted[key])
            case.check_fact(f"{name}/{number}/betas", list(group["betas"]), wanted["betas"])
    for accumulate, gpus, size, base, result in case.meta["lr_examples"]["transformer"]:
        assert learning_rate(accumulate, gpus, size, base) == pytest.approx(result, rel=1e-12)


def test_accuracy_is_the_published_one():
    case = Case("data")
    logits, target = (torch.from_numpy(case.inputs[key]) for key in ("acc_logits", "acc_target"))
    case.check("accuracy", np.array([float(value) for value in accuracy(logits, target)], np.float32))
