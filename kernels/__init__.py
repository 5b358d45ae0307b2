"""Operations with more than one implementation, each with its definition beside it."""

from .attention import attention
from .decode_attention import decode_attention
from .dispatch import Choice, implementation, ran, which
from .nearest_code import nearest_code

__all__ = ["Choice", "attention", "decode_attention", "implementation", "nearest_code", "ran", "which"]
