"""Operations with more than one implementation, each with its definition beside it."""

from .attention import attention
from .decode_attention import decode_attention, decode_new_tokens
from .dispatch import Choice, implementation, ran, untried, which
from .draw_code import draw_code
from .nearest_code import nearest_code

__all__ = [
    "Choice",
    "attention",
    "decode_attention",
    "decode_new_tokens",
    "draw_code",
    "implementation",
    "nearest_code",
    "ran",
    "untried",
    "which",
]
