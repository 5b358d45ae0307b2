"""The kernel of the draw in Triton's interpreter. Run by test_interpreted.py."""

import numpy as np
import pytest
import torch
from reference_cases import Case
from tats.kernels.draw_code import pick, probabilities

from tats import kernels


def drawn(logits, u, *settings):
    with kernels.implementation("fused"):
        found = kernels.draw_code(logits, u, *settings)
    assert kernels.ran("draw_code") == "fused"
    return found


def support(logits, *settings, points=16):
    """What evenly spread numbers draw from one row, and these numbers: [points] each."""
    u = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    found = drawn(logits.expand(points, -1), u, *settings)
    return found, u


@pytest.mark.parametrize("temperature, top_k, top_p", [(1.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.8), (1.0, 20, 0.9)])
@pytest.mark.parametrize("n", [2, 100])
def test_each_number_gives_the_code_of_the_definition(n, temperature, top_k, top_p):
    torch.manual_seed(n)
    logits, u = 3 * torch.randn(2, n), torch.rand(2, dtype=torch.float64)
    expected = pick(probabilities(logits, temperature, top_k, top_p), u)
    assert torch.equal(drawn(logits, u, temperature, top_k, top_p), expected)


@pytest.mark.parametrize("name", ["normal", "allequal"])
def test_what_it_draws_has_a_published_probability(name):
    case = Case("sampling_filter")
    logits = torch.from_numpy(case.inputs[f"logits_{name}"])[:2]
    for number, (k, p, keep) in enumerate(case.inputs["combos"]):
        if keep > 1 or k == 1 or number % 6:
            continue
        unclear = [(w, c, r) for kind in ("tie_ambiguous", "rounding_ambiguous") for w, c, r in case.meta[kind]]
        clear = [row for row in range(len(logits)) if (f"logits_{name}", number, row) not in map(tuple, unclear)]
        probs = case.outputs[f"probs/logits_{name}"][number][: len(logits)].astype(np.float64)  # [rows, n]
        sums = np.cumsum(probs, -1) / probs.sum(-1, keepdims=True)
        for u in (0.31, 1 - 2**-53):
            found = drawn(logits, torch.full((len(logits),), u, dtype=torch.float64), 1.0, int(k), float(p)).numpy()
            for row in clear:
                code = found[row]
                assert probs[row, code] > 0
                below = sums[row, code - 1] if code else 0.0
                assert below - 1e-6 <= u <= sums[row, code] + 1e-6


def test_equals_of_the_kth_stay_and_of_equals_at_p_those_with_lower_ids():
    logits = torch.tensor([[0.0, 1.0, 1.0, 3.0, 1.0]])
    found, _ = support(logits, 1.0, 3, 1.0)
    assert sorted(set(found.tolist())) == [1, 2, 3, 4]
    flat = torch.zeros(1, 10)
    found, _ = support(flat, 1.0, 0, 0.35)
    assert sorted(set(found.tolist())) == [0, 1, 2, 3]


def test_many_draws_follow_the_probabilities():
    torch.manual_seed(1)
    logits, count = torch.randn(1, 12), 50
    u = torch.rand(count, dtype=torch.float64)
    found = drawn(logits.expand(count, -1), u, 0.9, 0, 0.8)
    expected = probabilities(logits, 0.9, 0, 0.8)[0].double() * count
    seen = torch.bincount(found, minlength=12)
    kept = expected > 0
    assert int(seen[~kept].sum()) == 0
    chi_square = ((seen - expected).square() / expected)[kept].sum()
    assert chi_square < 24.3  # one in a thousand exceeds this at 7 degrees of freedom, and the seed is fixed


def test_strides_halves_minus_infinity_and_one_number_for_all():
    torch.manual_seed(2)
    wide = torch.randn(40, 3)
    wide[::3] = -float("inf")
    u = torch.tensor([0.4], dtype=torch.float64)
    expected = pick(probabilities(wide.t(), 1.0, 0, 0.9), u.expand(3))
    assert torch.equal(drawn(wide.t(), u, 1.0, 0, 0.9), expected)
    half = torch.randn(2, 33, dtype=torch.float16)
    assert torch.equal(drawn(half, u), pick(probabilities(half), u.expand(2)))
    buffer = torch.full((2, 50), float("nan"))
    buffer[:, :20] = torch.randn(2, 20)  # behind the row stands what must not be read
    assert torch.equal(drawn(buffer[:, :20], u, 1.0, 4), pick(probabilities(buffer[:, :20], 1.0, 4), u.expand(2)))
