"""The VQGAN: encoding and decoding a clip, the published way beside ours in float32 and in bf16, in one run.

    python benchmarks/vqgan.py                    # writes benchmarks/results/vqgan.json
    python benchmarks/vqgan.py --sides 64         # quarter-size pictures alone: prints, stores nothing
    python benchmarks/vqgan.py --size ci          # seconds: checks only that all ways agree

16 frames of the default VQGAN, random weights and batch statistics. Channels lie last in memory, as in a VQGAN that was
loaded from a file, but in one of the ways; bf16 is what torch's autocast makes of it. One thread and processor time,
because other programs share this machine; the order of the ways alternates. The floor is what the convolutions must
compute, at the rate of a large matrix product in that format measured in the same run. Nothing is timed before the
pictures and codes agree.
"""

import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.limits import Limits, measured_limits
from benchmarks.sampling_ways import compare
from benchmarks.tables import store
from tats import flags
from tats.flags import arg

if TYPE_CHECKING:
    import torch

    from tats.vqgan.model import VQGAN

FRAMES = 16
SIZES: dict[str, dict[str, Any]] = {
    "ci": {"n_codes": 512, "embedding_dim": 8, "n_hiddens": 4, "downsample": (4, 4, 4)},
    "default": {"n_codes": 16384, "embedding_dim": 256, "n_hiddens": 32, "downsample": (4, 8, 8)},
}
FIRST = "fp32, channels first"
ALLOWED = {
    "published": 0.0,
    "fp32": 1e-5,
    FIRST: 1e-5,
    "bf16": 2e-2,
}  # relative distance of pictures from published ones
CODES_DIFFER = {  # of random pictures, whose codes lie close together
    "published": 0.0,
    "fp32": 0.002,
    FIRST: 0.002,
    "bf16": 0.3,
}

Ways = dict[str, Callable[[], "torch.Tensor"]]


@dataclass(frozen=True)
class Config:
    """Times encoding and decoding of one clip."""

    size: str = arg("default", "the VQGAN", [*SIZES])
    sides: tuple[int, ...] = arg((64, 128), "pixels of a side of the pictures")
    rounds: int = arg(3, "timed rounds after one that is thrown away")


def make(size: str, side: int) -> "VQGAN":
    """A VQGAN whose batch statistics are not those of a fresh one."""
    import torch

    from tats.vqgan.config import VQGANConfig
    from tats.vqgan.model import VQGAN

    torch.manual_seed(0)
    config = VQGANConfig(norm_type="batch", resolution=side, sequence_length=FRAMES, **SIZES[size])
    vqgan = VQGAN(config).eval()
    for layer in vqgan.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.get_buffer("running_mean").normal_(0, 0.1)
            layer.get_buffer("running_var").uniform_(0.8, 1.2)
    with torch.no_grad():  # codes among the features, so that choosing them is a choice
        codes = vqgan.get_buffer("codebook.embeddings")
        z = vqgan.features(torch.rand(1, 3, FRAMES, side, side) - 0.5)
        codes.copy_(codes * z.std() + z.mean())
    return vqgan


def ways(vqgan: "VQGAN", side: int) -> dict[str, Ways]:
    """Every way to encode one random clip and to decode random codes."""
    import copy

    import torch

    from benchmarks import published_vqgan

    loaded = copy.deepcopy(vqgan).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    video = torch.rand(1, 3, FRAMES, side, side) - 0.5
    t, h, w = vqgan.config.downsample
    codes = torch.randint(vqgan.n_codes, (1, FRAMES // t, side // h, side // w))

    def in_bf16(call: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return call()

        return run

    return {
        "encode": {
            "published": lambda: published_vqgan.encode(vqgan, video),
            "fp32": lambda: loaded.encode(video),
            FIRST: lambda: vqgan.encode(video),
            "bf16": in_bf16(lambda: loaded.encode(video)),
        },
        "decode": {
            "published": lambda: published_vqgan.decode(vqgan, codes),
            "fp32": lambda: loaded.decode(codes),
            FIRST: lambda: vqgan.decode(codes),
            "bf16": in_bf16(lambda: loaded.decode(codes).float()),
        },
    }


def check(what: str, made: Ways) -> dict[str, float]:
    """How far every way is from the published one: share of other codes, or relative distance of the pictures.

    Raises:
        ValueError: further than is allowed.
    """
    truth, found = made["published"](), {}
    for way, call in made.items():
        result = call()
        far = (result != truth).float().mean() if what == "encode" else (result - truth).norm() / truth.norm()
        found[way] = float(far)
        allowed = (CODES_DIFFER if what == "encode" else ALLOWED)[way]
        if found[way] > allowed:
            raise ValueError(f"{what}, {way}: {found[way]:.2g} away from the published result, allowed {allowed}")
    return found


def operations(vqgan: "VQGAN", what: str, side: int) -> int:
    """Products and sums of the convolutions and of the choice of codes, counted from shapes."""
    import torch

    from tats.vqgan.layers import SameConv3d

    counted = [0]

    def down(layer: torch.nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        counted[0] += 2 * layer.get_parameter("conv.weight").numel() * made[0, 0].numel()

    def up(layer: torch.nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        counted[0] += 2 * layer.get_parameter("weight").numel() * given[0][0, 0].numel()

    with torch.device("meta"):
        empty = type(vqgan)(vqgan.config).eval()
    for layer in empty.modules():
        if isinstance(layer, SameConv3d):
            layer.register_forward_hook(down)
        elif isinstance(layer, torch.nn.ConvTranspose3d):
            layer.register_forward_hook(up)
    t, h, w = vqgan.config.downsample
    with torch.no_grad():
        if what == "encode":
            z = empty.features(torch.empty(1, 3, FRAMES, side, side, device="meta"))
            return counted[0] + 2 * z.numel() * vqgan.n_codes
        shape = (1, vqgan.config.embedding_dim, FRAMES // t, side // h, side // w)
        empty.rebuild(torch.empty(shape, device="meta"))
    return counted[0]


def measure(config: Config, limits: Limits) -> list[dict[str, Any]]:
    """A record for every size of picture, encoding and decoding, and way."""
    import torch

    found = []
    for side in config.sides:
        vqgan = make(config.size, side)
        for what, made in ways(vqgan, side).items():
            with torch.inference_mode():
                far = check(what, made)
                times = compare(made, config.rounds)
            theirs, work = times["published"], operations(vqgan, what, side)
            for way, values in times.items():
                middle, rate = statistics.median(values), limits.matrix["bf16" if way == "bf16" else "fp32"]
                found.append(
                    {
                        "what": what, "side": side, "way": way, "far": far[way], "operations": work,
                        "published": statistics.median(theirs), "ours": middle, "ours_least": min(values),
                        "times_faster": statistics.median(theirs) / middle,
                        "times_faster_by_least": min(theirs) / min(values), "share_of_floor": work / rate / middle,
                    }
                )  # fmt: skip
                print(what, side, way, f"{middle:.3f} s, {found[-1]['times_faster']:.2f}x", flush=True)
    return found


def keep(found: Sequence[dict[str, Any]], config: Config, limits: Limits, load: list[float]) -> None:
    """Store the results and the table that documents show of them."""
    columns = ["", "pixels", "way", "seconds", "times faster", "share of floor", "difference"]
    rows = [
        [
            r["what"],
            f"{FRAMES}x{r['side']}x{r['side']}",
            r["way"],
            r["ours"],
            round(r["times_faster"], 2),
            f"{r['share_of_floor']:.0%}",
            f"{r['far']:.1%} of codes" if r["what"] == "encode" else f"{r['far']:.1e}",
        ]
        for r in found
    ]
    note = (
        f"One clip, the default VQGAN with random weights, one thread, processor time, median of {config.rounds} "
        f"rounds in turn; codes of random pictures, relative distance of decoded ones; floor: the operations of the "
        f"convolutions at the rate of a large matrix product ({limits.told()}); load of the machine {load[0]:.1f} "
        f"before and {load[1]:.1f} after"
    )
    details = {"ways": list(found), "limits": asdict(limits), "load": load}
    store("vqgan", columns, rows, command="python benchmarks/vqgan.py", note=note, details=details)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, store."""
    config = flags.parse(Config, argv)
    import torch

    torch.set_num_threads(1)
    if config.size == "ci":
        config = Config(size="ci", sides=(16,), rounds=1)
    load, limits = os.getloadavg()[0], measured_limits()
    found = measure(config, limits)
    if (config.size, config.sides) == ("default", Config().sides):
        keep(found, config, limits, [load, os.getloadavg()[0]])


if __name__ == "__main__":
    flags.run(main)
