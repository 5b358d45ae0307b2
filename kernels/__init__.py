"""Operations with more than one implementation, each with its definition beside it."""

from .dispatch import Choice, implementation, ran, which
from .nearest_code import nearest_code

__all__ = ["Choice", "implementation", "nearest_code", "ran", "which"]
