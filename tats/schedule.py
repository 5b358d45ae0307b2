"""The course of the learning rate, for both trainers."""

import math

SCHEDULES = ("constant", "cosine")


def rate_factor(step: int, schedule: str, warmup: int, total: float, falls_from: int = 0) -> float:
    """What the learning rate is multiplied with at an optimizer step, counted from 0.

    It rises linearly over `warmup` steps; `constant` then stays at 1, `cosine` falls as half a cosine that begins at
    the step `falls_from` and ends with 0 at `total`. The VQGAN's begins with the run, the transformer's after its
    warm-up: recipes were tuned with either.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
    if schedule == "constant" or math.isinf(total):
        return rise
    done = (step - falls_from) / max(total - falls_from, 1)
    return rise * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
