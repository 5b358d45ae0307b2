"""The published algorithm that benchmarks time is the published algorithm."""

import pytest
import torch
from reference_cases import Case

from benchmarks.published_sampler import PublishedSampler, filtered
from tats import checkpoint


class Watched(PublishedSampler):
    """Remembers the logits and the probabilities of every step."""

    def __init__(self, gpt):
        super().__init__(gpt)
        self.logits, self.probabilities = [], []

    def choose(self, logits, temperature, top_k, top_p, choose):
        def watched(probabilities):
            self.probabilities.append(probabilities)
            return choose(probabilities)

        self.logits.append(logits[:, -1])
        return super().choose(logits, temperature, top_k, top_p, watched)


def best(probabilities):
    return probabilities.argmax(-1, keepdim=True)


def sampler(case, kind=Watched):
    return kind(checkpoint.load_transformer(case.file("gpt.ckpt"), case.file("vqgan.ckpt")))


@pytest.mark.parametrize("start, kind", [("c", "greedy"), ("prefix", "greedy_prefix")])
def test_greedy_ids_and_the_logits_behind_them(start, kind):
    case = Case("sampling_base")
    published, tokens = sampler(case), torch.from_numpy(case.inputs[start])
    case.check(f"{kind}/tokens", published.sample(tokens, int(case.inputs["steps"]) + 1 - tokens.shape[1], choose=best))
    case.check(f"{kind}/step_logits", torch.stack(published.logits, 1))


def test_given_random_numbers_give_the_published_ids():
    case = Case("sampling_base")
    u, cond = torch.from_numpy(case.inputs["uniforms"]), torch.from_numpy(case.inputs["c"])
    for name, setting in case.meta["settings"].items():
        numbers = iter(u)
        fall = lambda p, numbers=numbers: (p.double().cumsum(-1) <= next(numbers)[:, None]).sum(-1, keepdim=True)
        published = sampler(case)
        case.check(f"{name}/tokens", published.sample(cond, len(u), choose=fall, **setting))
        case.check(f"{name}/probs", torch.stack(published.probabilities, 1))


def test_the_sliding_window_gives_the_published_codes():
    case = Case("sampling_long_fast")
    published, cond = sampler(case), torch.zeros(1, 1, dtype=torch.long)
    assert published.config.code_offset == 0
    for context in case.inputs["temporal_sample_pos"].tolist():
        for length in case.inputs["temporal_infer"].tolist():
            ids = published.sample_long(cond, length, context, 16, top_k=20, top_p=0.9, choose=best)
            case.check(f"tokens/pos{context}_len{length}", ids.view(1, length, 4, 4))


def test_the_filter_gives_the_published_probabilities():
    case = Case("sampling_filter")
    logits = torch.from_numpy(case.inputs["logits_normal"])
    ambiguous = {tuple(entry) for kind in ("tie_ambiguous", "rounding_ambiguous") for entry in case.meta[kind]}
    compared = 0
    for number, (k, p, keep) in enumerate(case.inputs["combos"]):
        rows = [row for row in range(len(logits)) if ("logits_normal", number, row) not in ambiguous]
        if keep == 1:
            made = filtered(logits.clone(), int(k), float(p)).softmax(-1)[rows]
            expected = torch.from_numpy(case.outputs["probs/logits_normal"][number])[rows]
            assert (made - expected).abs().max() <= case.tolerance("probs/logits_normal")
            compared += len(rows)
    assert compared > 20
