"""The kernel of the nearest code in Triton's interpreter. Run by test_interpreted.py."""

import pytest
import torch
from tats.kernels.nearest_code.reference import nearest_code_reference

from tats import kernels


def found(vectors, codes):
    with kernels.implementation("fused"):
        ids = kernels.nearest_code(vectors, codes)
    assert kernels.ran("nearest_code") == "fused"
    return ids


@pytest.mark.parametrize("n, n_codes, width", [(1, 1, 1), (63, 64, 3), (100, 1023, 8), (7, 300, 100), (0, 3, 4)])
def test_the_kernel_finds_what_the_definition_finds_in_float64(n, n_codes, width):
    torch.manual_seed(n)
    vectors, codes = torch.randn(n, width), torch.randn(n_codes, width)
    assert torch.equal(found(vectors, codes), nearest_code_reference(vectors.double(), codes.double()))


def test_of_equal_codes_the_first_wins():
    vectors, codes = torch.randint(-9, 9, (20, 4)).float(), torch.randint(-9, 9, (5, 4)).float()  # sums are exact
    assert found(vectors, codes.repeat(60, 1)).max() < 5  # every code stands in several tiles


def test_strides_and_nothing_behind_the_end():
    torch.manual_seed(0)
    vectors, codes = torch.randn(8, 90).t(), torch.full((80, 16), float("nan"))
    codes[:70, :8] = torch.randn(70, 8)
    expected = nearest_code_reference(vectors.contiguous(), codes[:70, :8].contiguous())
    assert torch.equal(found(vectors, codes[:70, :8]), expected)
