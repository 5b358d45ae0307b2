"""Drawing and sampling against the published samplers, code for code."""

import numpy as np
import pytest
import torch
from reference_cases import Case

import tats
from tats import checkpoint
from tats.gpt.api import sample_codes, sample_hierarchical_codes, sample_long_codes, sample_wide_codes
from tats.gpt.cache import KVCache
from tats.gpt.draw import Draw, filter_logits
from tats.gpt.engine import Engine
from tats.gpt.layout import Layout
from tats.gpt.model import published_mask
from tats.gpt.objective import crop_places
from tats.gpt.sample import fill_as_published


def tensor(case, name):
    return torch.from_numpy(case.inputs[name])


def models(case, file="gpt.ckpt"):
    return checkpoint.load_pair(case.file(file), case.file("vqgan.ckpt"))


def shown(vqgan, codes):
    """What the published scripts save: pixels in [0, 1]."""
    with torch.no_grad():
        return vqgan.decode(codes).clamp(-0.5, 0.5) + 0.5


@pytest.mark.parametrize("name", ["normal", "peaked", "extreme", "ties", "allequal"])
def test_filters(name):
    case = Case("sampling_filter")
    logits = tensor(case, f"logits_{name}")
    combos = [(int(k), float(p), int(m)) for k, p, m in case.inputs["combos"]]
    probs = torch.stack([filter_logits(logits, k, p, m).softmax(-1) for k, p, m in combos])
    ties = marks(case, "tie_ambiguous", name, probs.shape[:2])
    rounding = marks(case, "rounding_ambiguous", name, probs.shape[:2])
    key = f"probs/logits_{name}"
    case.check(key, probs, leave_out=(ties | rounding)[..., None], reason="ambiguous: ties or rounding of a sum")
    tied = ties & ~rounding  # there the probabilities are the same, which of the equal ids have them is not
    expected = np.sort(case.outputs[key][tied], -1)
    assert np.abs(np.sort(probs.numpy()[tied], -1) - expected).max(initial=0) <= case.tolerance(key)
    case.check(f"top_k_logits/logits_{name}", torch.stack([filter_logits(logits, k) for k in (1, 3, 10)]))


@pytest.mark.parametrize("name", ["normal", "peaked", "extreme"])
def test_the_fast_draw_has_the_published_probabilities(name):
    case = Case("sampling_filter")
    logits = tensor(case, f"logits_{name}")
    for number, (k, p, keep) in enumerate(case.inputs["combos"]):
        if keep > 1:
            continue
        ambiguous = marks(case, "rounding_ambiguous", name, (len(case.inputs["combos"]), len(logits)))[number]
        ambiguous |= marks(case, "tie_ambiguous", name, (len(case.inputs["combos"]), len(logits)))[number]
        probs = Draw(int(k), float(p)).probabilities(logits).numpy()
        key = f"probs/logits_{name}"
        difference = np.abs(probs - case.outputs[key][number])[~ambiguous]
        assert difference.max(initial=0) <= case.tolerance(key)


def marks(case, kind, name, shape):
    """bool [combos, rows]: the entries that the case calls ambiguous."""
    found = np.zeros(shape, bool)
    for which, combo, row in case.meta[kind]:
        if which == f"logits_{name}":
            found[combo, row] = True
    return found


def unroll(engine, tokens, steps, choose):
    """Show `tokens`, then token after token; `choose(step, logits)` picks. -> tokens, logits [B, steps, ...]"""
    engine.reset()
    logits = engine(tokens, engine.order[: tokens.shape[1]])
    chosen, seen = [], []
    for step in range(steps):
        chosen.append(choose(step, logits))
        seen.append(logits)
        at = tokens.shape[1] + step
        if step < steps - 1:
            logits = engine(chosen[-1][:, None], engine.order[at : at + 1])
    return torch.stack(chosen, 1), torch.stack(seen, 1)


def test_greedy_codes_and_the_logits_behind_them():
    case = Case("sampling_base")
    gpt, _ = models(case)
    engine = Engine(gpt, 2, whole_vocabulary=True)
    steps = int(case.inputs["steps"])
    best = lambda step, logits: logits.argmax(-1)
    tokens, logits = unroll(engine, tensor(case, "c"), steps, best)
    case.check("greedy/tokens", tokens)
    case.check("greedy/step_logits", logits)
    case.check("greedy_n2n_sample/tokens", tokens[:, :12])
    prefix = tensor(case, "prefix")
    tokens, logits = unroll(engine, prefix, steps + 1 - prefix.shape[1], best)
    case.check("greedy_prefix/tokens", tokens)
    case.check("greedy_prefix/step_logits", logits)


def test_given_random_numbers_give_the_published_codes():
    case = Case("sampling_base")
    gpt, _ = models(case)
    engine = Engine(gpt, 2, whole_vocabulary=True)
    u = tensor(case, "uniforms")
    for name, setting in case.meta["settings"].items():
        filtered = setting["top_k"] is not None
        draw = Draw(setting["top_k"], setting["top_p"] if filtered else None, setting["temperature"])
        tokens, logits = unroll(
            engine, tensor(case, "c"), len(u), lambda step, logits, draw=draw: draw(logits, u[step])
        )
        case.check(f"{name}/tokens", tokens)
        case.check(f"{name}/probs", torch.stack([draw.probabilities(row) for row in logits.unbind(1)], 1))


def test_short_clips():
    case = Case("sampling_base")
    gpt, vqgan = models(case)
    label = int(case.inputs["class_label"])
    codes = tats.sample_codes(gpt, label=label, seeds=[0, 1], top_k=1, as_published=True)
    case.check("short_script/class_label", torch.full((2, 1), label))
    case.check("short_script/tokens_clamped", codes)
    case.check("short_script/samples", shown(vqgan, codes))


def test_long_videos_with_every_context():
    case = Case("sampling_long_fast")
    gpt, vqgan = models(case)
    for context in case.inputs["temporal_sample_pos"].tolist():
        for length in case.inputs["temporal_infer"].tolist():
            frames = sample_long_codes(gpt, length, context, seeds=[0], top_k=1, as_published=True)
            codes = torch.stack(list(frames), 1)
            case.check(f"tokens/pos{context}_len{length}", codes)
            if f"video/pos{context}_len{length}" in case.outputs:
                case.check(f"video/pos{context}_len{length}", shown(vqgan, codes))


def test_hierarchical_videos():
    case = Case("sampling_hierarchical")
    coarse, vqgan = models(case, "gpt_ar.ckpt")
    fine, _ = models(case, "gpt_interp.ckpt")
    for run, (length, context, _) in enumerate(case.inputs["runs"].tolist()):
        frames = sample_hierarchical_codes(coarse, fine, length + 1, context, seeds=[0], top_k=1, as_published=True)
        codes = torch.stack(list(frames), 1)
        case.check(f"run{run}/lv2_tokens", codes)
        case.check(f"run{run}/lv1_tokens", codes[:, ::4])
        video = shown(vqgan, codes)
        case.check(f"run{run}/samples", video if run == 0 else video[:, :, ::5])


def test_frames_between_two_known_ones():
    case = Case("gpt_interp")
    gpt, _ = models(case)
    past, future, steps = tensor(case, "past"), tensor(case, "future"), int(case.inputs["steps"])
    layout = Layout(1, 5, 4, 4, gpt.config.code_offset)
    codes = torch.zeros(2, 5, 4, 4, dtype=torch.long)
    codes[:, 0] = past[:, 1:].view(2, 4, 4) - layout.code_offset
    codes[:, -1] = future.view(2, 4, 4) - layout.code_offset
    engine = Engine(gpt, 2, whole_vocabulary=True)
    u = torch.zeros(1, 3, 16)
    fill_as_published(engine, layout, past[:, :1], codes, range(1, 4), [Draw(1)] * 3, u)
    made = layout.token(codes[:, 1:4]).flatten(1)
    assert made.shape[1] == steps
    case.check("greedy_tokens", made)
    best_of_filtered = [Best(10, 0.8, 0.7)] * 3
    fill_as_published(engine, layout, past[:, :1], codes, range(1, 4), best_of_filtered, u)
    case.check("greedy_tokens_topk_topp", layout.token(codes[:, 1:4]).flatten(1))


class Best(Draw):
    """The most likely code of what top-k and top-p leave."""

    def __call__(self, logits, u):
        return self.probabilities(logits).argmax(-1)


def test_logits_behind_frames_between_two_known_ones():
    case = Case("gpt_interp")
    gpt, _ = models(case)
    past, future, steps = tensor(case, "past"), tensor(case, "future"), int(case.inputs["steps"])
    tokens = torch.cat([past, future], 1)
    order = torch.arange(gpt.config.block_size)
    positions = torch.cat([order[:17], order[-16:]])
    cache = KVCache(gpt.config, 2)
    mask = published_mask(80, 16)[: tokens.shape[1], : tokens.shape[1]]
    made, seen = [], []
    with torch.no_grad():
        logits = gpt(tokens, positions, cache, mask=mask)
        case.check("first_call_logits", logits)
        for step in range(steps):
            seen.append(logits[:, -1])
            made.append(seen[-1].argmax(-1, keepdim=True))
            if step < steps - 1:
                logits = gpt(made[-1], order[17 + step : 18 + step], cache)
    case.check("greedy_tokens", torch.cat(made, 1))
    case.check("step_logits", torch.stack(seen, 1))


def test_cached_steps_with_places():
    case = Case("gpt_spatial")
    gpt, _ = models(case)
    places = crop_places((2, 4, 4), tensor(case, "cbox")[:1])
    engine = Engine(gpt, 1, whole_vocabulary=True)
    token, made = tensor(case, "c1"), []
    for at in range(32):
        token = engine(token, engine.order[at : at + 1], places=places[:, at : at + 1]).argmax(-1, keepdim=True)
        made.append(token)
    case.check("cached_greedy_cbox", torch.cat(made, 1))


def test_pictures_beyond_the_trained_size():
    case = Case("gpt_spatial")
    gpt, vqgan = models(case)
    for name, run, _top_k, temperature in case.json("cfg.json")["sample_long"]:
        frames, side, context = run["temporal_infer"], run["spatial_infer"], run["temporal_sample_pos"]
        settings = {"top_k": 1, "temperature": temperature, "as_published": True}
        made = sample_wide_codes(gpt, frames, (side, side), context, seeds=[0], **settings)
        codes = torch.stack(list(made), 1)
        case.check(f"sample_long/{name}", shown(vqgan, codes) if run.get("save_videos") else codes)


def test_text_and_sound_as_condition():
    case = Case("cond_text")
    gpt, vqgan = models(case)
    codes = sample_codes(gpt, text=tensor(case, "text")[:1], seeds=[0], top_k=1, as_published=True)
    case.check("greedy_tokens", codes.flatten(1) + gpt.config.code_offset)
    case.check("samples", shown(vqgan, codes))
    case = Case("cond_stft")
    gpt, vqgan = models(case)
    sound = checkpoint.load_sound_vqgan(case.file("gpt.ckpt"), case.file("stft_vqgan.ckpt"))
    stft = tensor(case, "stft_u8").float() / 255 * 2 - 1
    with torch.no_grad():
        case.check("stft_pre_vq_sample0", sound.features(stft)[:1])
    cond = sound.encode(stft)
    case.check("stft_codes", cond)
    codes = sample_codes(gpt, sound=cond[:1], seeds=[0], top_k=1, as_published=True)
    case.check("greedy_tokens", codes.flatten(1) + gpt.config.code_offset)
    case.check("samples", shown(vqgan, codes))
