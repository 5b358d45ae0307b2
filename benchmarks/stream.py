"""The VQGAN piece by piece beside the VQGAN at once: time, difference, memory.

    python benchmarks/stream.py                        # writes benchmarks/results/stream.json and stream_memory.json
    python benchmarks/stream.py --rounds 2 --lengths 64 512

Random weights and batch statistics. One thread and processor time, because other programs share this machine; whole and
streamed in turn. Peak memory is that of a fresh process each, above what it holds before the first frame; the streamed
frames are looked at and dropped, as a file would take them.
"""

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tables import store
from tats import flags
from tats.flags import arg

WAYS = ("decode", "decode_stream", "encode", "encode_stream")
SIZES: dict[str, dict[str, Any]] = {
    "small": {"n_hiddens": 4, "embedding_dim": 16, "downsample": (4, 4, 4), "resolution": 32},
    "large": {"n_hiddens": 32, "embedding_dim": 256, "downsample": (4, 8, 8), "resolution": 64},
}


@dataclass(frozen=True)
class Config:
    """Times decode and encode, streamed and at once, and measures the memory of both."""

    latents: tuple[int, int] = arg((256, 24), "latent frames that are timed, of the small and of the large VQGAN")
    lengths: tuple[int, ...] = arg((64, 512, 4096), "latent frames whose memory is measured, with the small VQGAN")
    whole_up_to: int = arg(512, "longest video that is also decoded at once for its memory")
    rounds: int = arg(5, "timed rounds after one that is thrown away")
    probe: str | None = arg(None, "print the peak memory of one way, for the first of --lengths", list(WAYS))


def make(size: str) -> Any:
    """A VQGAN with batch normalisation whose statistics are not those of a fresh one."""
    import torch

    from tats.vqgan.config import VQGANConfig
    from tats.vqgan.model import VQGAN

    torch.manual_seed(0)
    vqgan = VQGAN(VQGANConfig(n_codes=1024, norm_type="batch", sequence_length=16, **SIZES[size])).eval()
    for layer in vqgan.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.get_buffer("running_mean").normal_(0, 0.1)
            layer.get_buffer("running_var").uniform_(0.8, 1.2)
    return vqgan


def ways(vqgan: Any, latents: int) -> dict[str, Callable[[], Any]]:
    """What is compared, each on the same random codes or frames, which come a latent frame at a time."""
    import torch

    from tats.vqgan.stream import decode_stream, encode_stream

    t, h, w = vqgan.config.downsample
    side = vqgan.config.resolution
    codes = torch.randint(vqgan.n_codes, (1, latents, side // h, side // w))
    video = torch.rand(1, 3, latents * t, side, side) - 0.5
    return {
        "decode": lambda: vqgan.decode(codes),
        "decode_stream": lambda: torch.cat(list(decode_stream(vqgan, codes.unbind(1))), 2),
        "encode": lambda: vqgan.encode(video),
        "encode_stream": lambda: torch.stack(list(encode_stream(vqgan, video.split(t, 2))), 1),
    }


def compare(size: str, latents: int, rounds: int) -> list[dict[str, Any]]:
    """Agreement first, then the processor time of whole and streamed in alternating order."""
    import torch

    vqgan = make(size)
    found = []
    with torch.no_grad():
        made = ways(vqgan, latents)
        for whole, streamed in (WAYS[:2], WAYS[2:]):
            a, b = made[whole](), made[streamed]()
            differing = float((a != b).float().mean()) if whole == "encode" else None
            apart = float((a - b).abs().max() / a.abs().max()) if whole == "decode" else None
            times: dict[str, list[float]] = {whole: [], streamed: []}
            for round_ in range(rounds + 1):
                for way in (whole, streamed) if round_ % 2 else (streamed, whole):
                    start = time.process_time()
                    made[way]()
                    if round_:
                        times[way].append(time.process_time() - start)
            medians = {way: statistics.median(values) for way, values in times.items()}
            minima = {way: min(values) for way, values in times.items()}
            found.append(
                {
                    "vqgan": size,
                    "way": whole,
                    "latents": latents,
                    "seconds": {way: {"median": medians[way], "min": minima[way]} for way in times},
                    "ratio_of_medians": medians[streamed] / medians[whole],
                    "ratio_of_minima": minima[streamed] / minima[whole],
                    "relative_difference": apart,
                    "share_of_codes_that_differ": differing,
                }
            )
    return found


def endless(vqgan: Any, way: str, latents: int) -> Iterator[Any]:
    """The results of a streamed way whose input is made while it runs."""
    import torch

    from tats.vqgan.stream import decode_stream, encode_stream

    t, h, w = vqgan.config.downsample
    side = vqgan.config.resolution
    counted = itertools.repeat(None, latents)
    if way == "decode_stream":
        return decode_stream(vqgan, (torch.randint(vqgan.n_codes, (1, side // h, side // w)) for _ in counted))
    return encode_stream(vqgan, (torch.rand(1, 3, t, side, side) - 0.5 for _ in counted))


def probe(way: str, latents: int) -> float:
    """Peak memory of one way in this process, in MiB above what it holds before. A short video comes first."""
    import ctypes

    import torch

    torch.set_num_threads(1)
    vqgan = make("small")

    def go(length: int) -> None:
        if way.endswith("stream"):
            for piece in endless(vqgan, way, length):
                piece.sum()
        else:
            ways(vqgan, length)[way]()

    with torch.no_grad():
        go(16)
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = memory("VmRSS")
        go(latents)
    return (memory("VmHWM") - before) / 1024


def memory(field: str) -> int:
    """A line of this process's memory status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def peaks(config: Config) -> dict[str, dict[int, float]]:
    """Peak memory of every way at every length, each in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    found: dict[str, dict[int, float]] = {way: {} for way in WAYS}
    for way, length in itertools.product(WAYS, config.lengths):
        if way.endswith("stream") or length <= config.whole_up_to:
            command = [sys.executable, __file__, "--probe", way, "--lengths", str(length)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            found[way][length] = float(answer.stdout)
            print(f"{way}, {length} latent frames: {found[way][length]:.0f} MiB", flush=True)
    return found


def keep(timed: Sequence[dict[str, Any]], held: dict[str, dict[int, float]], config: Config, load: list[float]) -> None:
    """Store the results and the tables that documents show of them."""
    columns = ["VQGAN", "", "latent frames", "at once, s", "streamed, s", "streamed / at once", "difference"]
    rows = []
    for r in timed:
        size = SIZES[r["vqgan"]]
        name = f"{size['n_hiddens']} channels, {size['resolution']} x {size['resolution']}"
        apart = f"{r['relative_difference']:.1e}" if r["way"] == "decode" else None
        codes = f"{r['share_of_codes_that_differ']:.2%} of codes" if r["way"] == "encode" else None
        whole, streamed = (r["seconds"][way]["median"] for way in (r["way"], r["way"] + "_stream"))
        rows.append([name, r["way"], r["latents"], whole, streamed, r["ratio_of_medians"], apart or codes])
    note = (
        f"One thread, processor time, median of {config.rounds} rounds in turn; differences of pixels relative to the "
        f"largest; load of the machine {load[0]:.1f} before and {load[1]:.1f} after"
    )
    command = "python benchmarks/stream.py"
    store("stream", columns, rows, command=command, note=note, details={"results": list(timed), "load": load})
    columns = ["latent frames", "frames", *(f"{way.replace('_', ', ')}, MiB" for way in WAYS)]
    factor = SIZES["small"]["downsample"][0]
    rows = [
        [length, length * factor, *(round(held[way][length]) if length in held[way] else None for way in WAYS)]
        for length in config.lengths
    ]
    note = "Peak above what the process holds before, each in a fresh process; 4 channels, 32 x 32 pixels"
    store("stream_memory", columns, rows, command=command, note=note, details={"mib": held})


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, measure and store the results."""
    config = flags.parse(Config, argv)
    if config.probe is not None:
        print(probe(config.probe, config.lengths[0]))
        return
    import torch

    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    timed = [r for size, latents in zip(SIZES, config.latents) for r in compare(size, latents, config.rounds)]
    for r in timed:
        print(f"{r['vqgan']}, {r['way']}: {r['ratio_of_medians']:.3f} of the time at once", flush=True)
    keep(timed, peaks(config), config, [load, os.getloadavg()[0]])


if __name__ == "__main__":
    flags.run(main)
