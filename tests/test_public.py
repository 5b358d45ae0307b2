"""The names that users write in their own code."""

import subprocess
import sys

import pytest

import tats


@pytest.mark.parametrize("name", tats.__all__)
def test_every_public_name_is_there(name):
    assert callable(getattr(tats, name))


def test_rooms_load_when_they_are_used():
    code = (
        "import sys, tats; assert 'torch' not in sys.modules; "
        "print(tats.gpt.bpe.ClipBPE.__name__, tats.metrics.frechet.kernel_distance.__name__, tats.kernels.__name__)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["ClipBPE", "kernel_distance", "tats.kernels"]


def test_an_unknown_name_is_an_attribute_error():
    for room in (tats, tats.gpt, tats.metrics):
        with pytest.raises(AttributeError, match="nothing"):
            _ = room.nothing
