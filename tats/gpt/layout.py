"""Where the condition and the codes lie in the sequence."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Sizes of the condition, of a frame and of a window; turns (place, index) into a position.

    A window is the condition, then `frames` latent frames of `height` x `width` codes, row by row. The last code of a
    window is never an input.
    """

    n_cond: int
    frames: int
    height: int
    width: int
    code_offset: int = 0

    @property
    def frame_len(self) -> int:
        """Codes of one latent frame."""
        return self.height * self.width

    @property
    def length(self) -> int:
        """Positions of one window: everything but its last code."""
        return self.n_cond + self.frames * self.frame_len - 1

    def start(self, place: int) -> int:
        """Position of the first code of the frame at `place`."""
        return self.n_cond + place * self.frame_len

    def token(self, codes: Tensor) -> Tensor:
        """Codes as ids of the common vocabulary."""
        return codes + self.code_offset

    def tokens(self, cond: Tensor, codes: Tensor) -> Tensor:
        """The whole window, its last code included.  cond [B, n_cond], codes [B, t, h, w] -> [B, n_cond + t*h*w]"""
        return torch.cat([cond, self.token(codes).flatten(1)], 1)

    def known(self, cond: Tensor, past: Tensor, future: Tensor) -> tuple[Tensor, Tensor]:
        """What a window holds before anything is invented, at the positions of training.

        cond [B, n_cond]; past [B, p, h, w], the first frames; future [B, f, h, w], the last frames
        -> tokens [B, L], positions [L].
        """
        tokens = self.tokens(cond, past)
        positions = torch.arange(tokens.shape[1], device=cond.device)
        if future.shape[1]:
            behind = torch.arange(self.start(self.frames - future.shape[1]), self.length, device=cond.device)
            tokens = torch.cat([tokens, self.token(future).flatten(1)[:, :-1]], 1)
            positions = torch.cat([positions, behind])
        return tokens, positions

    def places(self, device: torch.device | str | None = None) -> Tensor:
        """Frame, row and column inside the window of every code, in the order of the sequence: int64 [t*h*w, 3]."""
        axes = [torch.arange(n, device=device) for n in (self.frames, self.height, self.width)]
        return torch.cartesian_prod(*axes)
