"""Muon for the matrices of a transformer's blocks, AdamW for everything else, as one optimizer.

Muon: momentum whose matrix is replaced by the nearest orthogonal one before it is applied, so that every direction of
a weight matrix learns equally fast. K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# The fifth-order iteration of the paper: its coefficients lift small singular values as fast as possible and leave all
# of them near 1 after five rounds, which is as good as exactly 1 here.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonal(matrix: Tensor) -> Tensor:
    """Roughly the nearest (semi-)orthogonal matrix, [m, n] -> float32 [m, n]; singular values come out in 0.7..1.2."""
    a, b, c = COEFFICIENTS
    x = matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """Groups with `muon: True` are updated by Muon, the others by AdamW; both decay weights by lr * weight_decay.

    groups: as torch.optim takes them, each with its own `lr`; Muon's hold matrices only. betas, eps: AdamW's.
    momentum: Muon's (Nesterov). A matrix [m, n] moves by lr * sqrt(max(1, m / n)) times an orthogonal one.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        momentum: float = 0.95,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "momentum": momentum, "weight_decay": 0.0, "muon": False}
        super().__init__(groups, defaults)
        for group in self.param_groups:
            wrong = [tuple(p.shape) for p in group["params"] if group["muon"] and p.ndim != 2]
            if wrong:
                raise ValueError(f"muon groups hold matrices only, got a parameter of shape {wrong[0]}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the gradients that are there."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            update = self._muon if group["muon"] else self._adamw
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    update(p, p.grad, group)
        return value

    def _muon(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(grad, 1 - group["momentum"])
        ahead = grad.lerp(state["momentum"], group["momentum"])
        scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
        p.add_(orthogonal(ahead).to(p.dtype), alpha=-group["lr"] * scale)

    def _adamw(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
        state["step"] += 1
        state["mean"].lerp_(grad, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        square = (state["square"] / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        p.addcdiv_(state["mean"], square, value=-group["lr"] / (1 - beta1 ** state["step"]))


def muon_groups(groups: list[dict[str, Any]], matrices: Iterable[Tensor], lr: float) -> list[dict[str, Any]]:
    """Groups of AdamW with the given matrices taken out of them and put into groups for Muon with the rate `lr`."""
    chosen = {id(p) for p in matrices}
    rest = [{**group, "params": [p for p in group["params"] if id(p) not in chosen]} for group in groups]
    taken = [
        {**group, "params": [p for p in group["params"] if id(p) in chosen], "lr": lr, "muon": True} for group in groups
    ]
    return [group for group in [*rest, *taken] if group["params"]]
