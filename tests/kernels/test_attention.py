"""Attention ops against their definition: values, gradients, and what must not be read."""

import pytest
import torch
from tats.kernels.attention import anchor_mask, attention_reference
from tats.kernels.decode_attention import decode_attention_reference

from tats import kernels
from tats.gpt.model import published_mask

DTYPES = [torch.float32, torch.bfloat16]
LENGTHS = [1, 63, 64, 100]  # of cached ones
WINDOWS = [*LENGTHS, 128, 200]  # from 128 on, bf16 goes in products of 128 rows


def allowance(exact, eager, size=1.0):
    """Twice the error of the definition itself in this number format; `size`: of the numbers that are summed."""
    return 2 * (eager - exact).abs().max() + 1e-6 * size


@pytest.mark.parametrize("prefix, suffix", [(0, 0), (1, 0), (0, 1), (17, 15), (30, 33), (140, 0)])
@pytest.mark.parametrize("length", WINDOWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_and_its_gradients_are_as_good_as_the_definition(length, prefix, suffix, dtype):
    if prefix + suffix > length:
        pytest.skip("more anchors than positions")
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, length, 16, dtype=dtype).unbind(0)
    above = torch.randn(2, 3, length, 16, dtype=dtype)

    def run(function, cast):
        inputs = [cast(x).clone().requires_grad_() for x in (q, k, v)]
        out = function(*inputs, prefix, suffix)
        out.backward(cast(above))
        return [out.detach(), *(x.grad for x in inputs)]

    exact = run(attention_reference, torch.Tensor.double)
    eager = run(attention_reference, lambda x: x)
    fast = run(kernels.attention, lambda x: x)
    assert kernels.ran("attention") == "torch"
    size = max(1.0, *(x.abs().max() for x in exact))  # a gradient that should be 0 is a difference of such numbers
    for wanted, plain, got in zip(exact, eager, fast):
        assert (got - wanted).abs().max() <= allowance(wanted, plain, size)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_new_token_sees_the_cached_ones_and_nothing_behind_them(length, dtype):
    torch.manual_seed(0)
    q = torch.randn(2, 3, 32, dtype=dtype)
    k, v = torch.randn(2, 2, 3, 100, 32, dtype=dtype)
    k[:, :, length:] = v[:, :, length:] = float("nan")
    exact = decode_attention_reference(q.double(), k.double(), v.double(), length)
    eager = decode_attention_reference(q, k, v, length)
    fast = kernels.decode_attention(q, k, v, length)
    assert kernels.ran("decode_attention") == "torch"
    assert (fast - exact).abs().max() <= allowance(exact, eager)


def test_strided_inputs_give_the_same():
    torch.manual_seed(0)
    wide = torch.randn(2, 10, 3, 3, 8)
    q, k, v = wide.permute(2, 0, 3, 1, 4)  # views into one tensor
    assert torch.equal(
        kernels.attention(q, k, v, 3, 2), kernels.attention(q.contiguous(), k.contiguous(), v.contiguous(), 3, 2)
    )


def test_the_reference_can_be_forced():
    q = torch.randn(1, 1, 4, 8)
    with kernels.implementation("reference"):
        forced = kernels.attention(q, q, q, 1, 1)
        assert kernels.ran("attention") == "reference"
    assert torch.equal(forced, attention_reference(q, q, q, 1, 1))


@pytest.mark.parametrize("length, u", [(20, 4), (9, 3), (12, 2), (80, 16)])
def test_anchors_are_the_published_mask(length, u):
    assert torch.equal(anchor_mask(length, u + 1, u - 1), published_mask(length, u))


def test_what_does_not_fit_is_refused():
    q = torch.randn(1, 2, 4, 8)
    with pytest.raises(ValueError, match="one shape"):
        kernels.attention(q, q[:, :, :3], q)
    with pytest.raises(ValueError, match="do not fit"):
        kernels.attention(q, q, q, 3, 2)
    with pytest.raises(ValueError, match=r"1\.\.4"):
        kernels.decode_attention(q[:, :, 0], q, q, 5)
    with pytest.raises(ValueError, match="expected"):
        kernels.decode_attention(q, q, q, 4)
