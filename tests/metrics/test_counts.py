"""Shares and their Wilson intervals."""

import math

import pytest

from tats.metrics.counts import Count, wilson


@pytest.mark.parametrize("hits, total", [(1, 10), (120, 240), (231, 240)])
def test_the_ends_of_the_interval_are_as_far_as_the_normal_law_allows(hits, total):
    share, z = hits / total, 1.959963984540054
    for end in wilson(hits, total):
        assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / total), rel=1e-9)


def test_none_and_all_touch_the_ends():
    assert wilson(0, 20)[0] == 0 < wilson(0, 20)[1] < 0.2
    assert wilson(20, 20)[1] == 1 > wilson(20, 20)[0] > 0.8
    assert wilson(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson(3, 2)


def test_a_count_prints_share_interval_and_numbers():
    assert str(Count(231, 240)) == "96.2 % (93.0-98.0 %), 231 of 240"
    assert str(Count(0, 0)) == "none tried"
    assert Count(1, 4).share == 0.25
    assert math.isnan(Count(0, 0).share)
