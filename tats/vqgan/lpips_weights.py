"""Where the weights of the perceptual distance come from: VGG16 or AlexNet and heads, or a checkpoint with both."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from tats import released, unpickle, weights
from tats.flags import UserError
from tats.vqgan.lpips import LPIPS, lpips_weights

STORED = "perceptual_model."  # what a VQGAN checkpoint puts before the names


def load_lpips(path: str | Path | None) -> LPIPS:
    """The perceptual distance with the weights of a file: VGG16 or AlexNet (the heads come with torchmetrics), a
    released VQGAN checkpoint, or a state dict of `LPIPS` itself. `path` may be a name that `tats weights` knows.

    Raises:
        UserError: no path, or a file that holds none of these.
    """
    if path is None:
        addresses = " or ".join(released.ALL[name].address for name in ("vgg16", "ucf101-vqgan"))
        raise UserError(
            "--perceptual_weight needs weights: --lpips_ckpt FILE with VGG16, or with any released VQGAN checkpoint "
            f"(from {addresses}); or leave the weight at 0"
        )
    found = weights.find(path, "--lpips_ckpt")
    if found.is_dir():
        raise UserError(f"--lpips_ckpt {found} is a folder; it takes the file of VGG16 or of a released VQGAN")
    content = unpickle.load(found)
    state: dict[str, Tensor] = content.get("state_dict", content) if isinstance(content, dict) else {}
    inside = {name.removeprefix(STORED): value for name, value in state.items() if name.startswith(STORED)}
    try:
        trunk = "alex" if _first(state).shape[-1:] == (11,) else "vgg"
        if "features.0.weight" in state:
            inside = lpips_weights(state, heads(trunk), trunk)
        lpips = LPIPS(trunk)
        lpips.load_state_dict({name: value.clone() for name, value in (inside or state).items()})
    except (RuntimeError, KeyError, AttributeError):
        raise UserError(
            f"--lpips_ckpt {found} holds neither VGG16 (features.0.weight ... features.28.bias) nor AlexNet nor a "
            f"complete {STORED}* of a released VQGAN checkpoint. {weights.how_to_get(released.ALL['vgg16'])}"
        ) from None
    return lpips


def _first(state: dict[str, Tensor]) -> Tensor:
    """The first convolution's weights, in any of the three kinds of file; 11 x 11 in AlexNet, 3 x 3 in VGG16."""
    names = ("features.0.weight", "net.slice1.0.weight", f"{STORED}net.slice1.0.weight")
    return next((state[name] for name in names if name in state), torch.empty(0))


def heads(trunk: str = "vgg") -> dict[str, Tensor]:
    """One weight per channel and layer, as they lie in the package torchmetrics. trunk: "vgg" or "alex"."""
    spec = find_spec("torchmetrics")
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).parent / f"functional/image/lpips_models/{trunk}.pth"
        if file.exists():
            return unpickle.load(file)
    return unpickle.load(weights.find(f"lpips-{trunk}", "the heads of LPIPS:"))
