"""The kernels of attention in Triton's interpreter. Run by test_interpreted.py."""

import pytest
import torch
from tats.kernels.attention import attention_reference
from tats.kernels.decode_attention import new_tokens_reference, quantized

from tats import kernels

WINDOWS = [(1, 0, 0), (63, 0, 5), (64, 17, 15), (100, 0, 0), (100, 40, 0), (100, 33, 33), (100, 70, 30)]


def allowance(exact, eager, size=1.0):
    """Twice the error of the definition itself in this number format; `size`: of the numbers that are summed."""
    return 2 * (eager - exact).abs().max() + 1e-6 * size


def results(function, inputs, above, prefix, suffix, cast):
    given = [cast(x).detach().requires_grad_() for x in inputs]
    out = function(*given, prefix, suffix)
    out.backward(cast(above))
    return [out.detach(), *(x.grad for x in given)]


@pytest.mark.parametrize("length, prefix, suffix", WINDOWS)
@pytest.mark.parametrize("dtype, width", [(torch.float32, 32), (torch.bfloat16, 48)])
def test_attention_and_its_gradients_are_as_good_as_the_definition(length, prefix, suffix, dtype, width):
    torch.manual_seed(0)
    wide = torch.full((1, length + 7, 3, 1, width), float("nan"), dtype=dtype)  # behind the end: not to be read
    wide[:, :length] = torch.randn(1, length, 3, 1, width, dtype=dtype)
    inputs = wide[:, :length].permute(2, 0, 3, 1, 4)  # views into one tensor, [1, 1, length, width] each
    above = torch.randn(1, 1, length, width, dtype=dtype)
    exact = results(attention_reference, inputs, above, prefix, suffix, torch.Tensor.double)
    eager = results(attention_reference, inputs, above, prefix, suffix, lambda x: x)
    with kernels.implementation("fused"):
        fast = results(kernels.attention, inputs, above, prefix, suffix, lambda x: x)
    assert kernels.ran("attention") == "fused"
    size = max(1.0, *(x.abs().max() for x in exact))
    for wanted, plain, got in zip(exact, eager, fast):
        assert (got - wanted).abs().max() <= allowance(wanted, plain, size)


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("eight", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["fused", "torch"])
def test_new_tokens_see_the_filled_part_of_their_row(tokens, eight, dtype, name):
    torch.manual_seed(0)
    q = torch.randn(3, 1, tokens, 32, dtype=dtype)
    k, v = torch.randn(2, 3, 1, 100, 32, dtype=dtype)
    lengths = torch.tensor([tokens, 64, 100])
    scales = None
    if eight:
        (k, k_scale), (v, v_scale) = quantized(k), quantized(v)
        scales = k_scale, v_scale
    for row, length in enumerate(lengths):
        for x in scales or (k, v):
            x[row, :, length:] = float("nan")
    exact = [x if eight else x.double() for x in (k, v)]
    exact = new_tokens_reference(q.double(), *exact, lengths.tolist(), scales)
    eager = new_tokens_reference(q, k, v, lengths.tolist(), scales)
    with kernels.implementation(name):
        fast = kernels.decode_new_tokens(q, k, v, lengths, scales)
    assert kernels.ran("decode_attention") == name
    assert (fast - exact).abs().max() <= allowance(exact, eager)


def test_one_new_token_of_a_length_for_all():
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 16), *torch.randn(2, 1, 2, 70, 16)
    k[:, :, 63:] = v[:, :, 63:] = float("nan")
    with kernels.implementation("fused"):
        fast = kernels.decode_attention(q, k, v, 63)
    assert torch.allclose(fast, kernels.decode_attention(q, k, v, 63), atol=1e-6)


def test_what_a_kernel_cannot_take_is_refused():
    q = torch.randn(1, 1, 4, 160)
    with kernels.implementation("fused"), pytest.raises(ValueError, match="up to 128"):
        kernels.attention(q, q, q)
    with kernels.implementation("fused"), pytest.raises(ValueError, match="float32, bfloat16"):
        kernels.attention(q.double(), q.double(), q.double())
