"""Where the weights of the perceptual distance come from: VGG16 and heads, or a checkpoint that holds both."""

from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from tats import released, unpickle, weights
from tats.flags import UserError
from tats.vqgan.lpips import LPIPS, lpips_weights

STORED = "perceptual_model."  # what a VQGAN checkpoint puts before the names


def load_lpips(path: str | Path | None) -> LPIPS:
    """The perceptual distance with the weights of a file: VGG16 (its heads come with torchmetrics), a released VQGAN
    checkpoint, or a state dict of `LPIPS` itself. `path` may be a name that `tats weights` knows.

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
        if "features.0.weight" in state:
            inside = lpips_weights(state, heads())
        lpips = LPIPS()
        lpips.load_state_dict({name: value.clone() for name, value in (inside or state).items()})
    except (RuntimeError, KeyError, AttributeError):
        raise UserError(
            f"--lpips_ckpt {found} holds neither VGG16 (features.0.weight ... features.28.bias) nor a complete "
            f"{STORED}* of a released VQGAN checkpoint. {weights.how_to_get(released.ALL['vgg16'])}"
        ) from None
    return lpips


def heads() -> dict[str, Tensor]:
    """One weight per channel and layer, as they lie in the package torchmetrics."""
    spec = find_spec("torchmetrics")
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).parent / "functional/image/lpips_models/vgg.pth"
        if file.exists():
            return unpickle.load(file)
    return unpickle.load(weights.find("lpips-vgg", "the heads of LPIPS:"))
