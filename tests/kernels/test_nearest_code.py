"""The nearest code in tiles is the nearest code by definition."""

import pytest
import torch
from tats.kernels.nearest_code.reference import nearest_code_reference
from tats.kernels.nearest_code.tiled import nearest_code_tiled

from tats import kernels

SIZES = [(1, 1, 1), (63, 64, 3), (100, 1023, 8), (1025, 1024, 16), (1030, 2050, 4), (7, 3000, 256)]  # vectors, codes, D


@pytest.mark.parametrize("n, n_codes, width", SIZES)
def test_tiles_find_what_the_definition_finds_in_float64(n, n_codes, width):
    torch.manual_seed(n)
    vectors, codes = torch.randn(n, width), torch.randn(n_codes, width)
    exact = nearest_code_reference(vectors.double(), codes.double())
    assert torch.equal(kernels.nearest_code(vectors, codes), exact)
    assert kernels.ran("nearest_code") == "torch"


def test_tiles_are_as_exact_as_the_published_formula_where_codes_lie_close():
    torch.manual_seed(0)
    vectors = torch.randn(2000, 32)
    codes = vectors[:500] + 1e-4 * torch.randn(500, 32)
    codes = torch.cat([codes, codes + 1e-6 * torch.randn(500, 32)])  # twins that float32 can hardly tell apart
    distance = (vectors.double()[:, None] - codes.double()[None]).square().sum(-1)  # [n, K], no cancellation
    best = distance.min(1).values

    def worst(found):
        return (distance.gather(1, found[:, None])[:, 0] - best).max()

    assert worst(nearest_code_tiled(vectors, codes)) <= worst(nearest_code_reference(vectors, codes)) + 1e-12


def test_of_equal_codes_the_first_wins():
    codes = torch.randn(5, 4).repeat(600, 1)  # every code stands in several tiles
    assert kernels.nearest_code(torch.randn(50, 4), codes).max() < 5


def test_strided_and_half_precision_input():
    torch.manual_seed(0)
    vectors, codes = torch.randn(8, 200).t(), torch.randn(300, 16)[:, ::2]
    expected = nearest_code_reference(vectors.contiguous(), codes.contiguous())
    assert torch.equal(kernels.nearest_code(vectors, codes), expected)
    half = vectors.bfloat16()
    assert torch.equal(kernels.nearest_code(half, codes), nearest_code_reference(half.float(), codes))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(kernels.nearest_code(vectors, codes), expected)


def test_no_vectors_give_no_codes():
    assert kernels.nearest_code(torch.empty(0, 4), torch.randn(3, 4)).shape == (0,)


def test_implementation_can_be_forced():
    vectors, codes = torch.randn(10, 4), torch.randn(20, 4)
    with kernels.implementation("reference"):
        assert kernels.which("nearest_code").name == "reference"
        forced = kernels.nearest_code(vectors, codes)
        assert kernels.ran("nearest_code") == "reference"
    assert kernels.which("nearest_code").name == "torch"
    assert torch.equal(forced, kernels.nearest_code(vectors, codes))
    with pytest.raises(ValueError, match="reference, torch"), kernels.implementation("magic"):
        pass


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="share D"):
        kernels.nearest_code(torch.randn(3, 4), torch.randn(5, 6))
    with pytest.raises(ValueError, match="at least one row"):
        kernels.nearest_code(torch.randn(3, 4), torch.empty(0, 4))
