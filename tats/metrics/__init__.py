"""What judges videos. Submodules load when they are first used."""

from tats import submodules

__getattr__ = submodules(__name__)
