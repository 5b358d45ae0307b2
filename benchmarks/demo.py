"""The numbers of the demo that README states: time of each step, scores with their counts, class by class.

    python benchmarks/demo.py            # runs the demo anew on this machine (a quarter of an hour on 2 cores)
    python benchmarks/demo.py --stored   # takes the numbers of the last run from runs/demo/demo.json

Writes benchmarks/results/demo_times.json, demo_scores.json, demo_classes.json and docs/images/demo.png; then fill the
tables with python benchmarks/tables.py.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.tables import store  # noqa: E402
from tats.demo_config import CHECKPOINT  # noqa: E402
from tats.metrics.counts import Count  # noqa: E402

COMMAND = "make demo"
TITLES = {
    "data": "write the dataset: 3600 + 240 video files",
    "vqgan": "train the VQGAN",
    "codes": "turn all clips into codes",
    "gpt": "train the transformer",
    "samples": "sample 240 clips",
    "long": "sample 4 videos of 1024 frames",
    "features": "train the feature network",
    "judge": "judge everything, write the page",
}


def picture() -> None:
    """docs/images/demo.png: frames 0, 5, 10 and 15 of the first sample of each class, three classes a row."""
    import imageio.v3 as imageio
    import numpy as np
    import torch

    from tats import checkpoint
    from tats.video import to_frames

    runs = ROOT / "runs" / "demo"
    vqgan = checkpoint.load_vqgan(f"{runs}/vqgan{CHECKPOINT}")
    with np.load(runs / "samples" / "codes.npz", allow_pickle=False) as file:
        codes, labels = file["codes"], file["labels"].tolist()
    first = torch.from_numpy(codes[[labels.index(label) for label in sorted(set(labels))]]).long()
    with torch.inference_mode():
        clips = to_frames(vqgan.decode(first))[:, ::5].numpy()  # [12, 4, H, W, 3]
    large = clips.repeat(2, axis=2).repeat(2, axis=3)
    framed = np.pad(large, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=60)
    strips = [np.concatenate([*clip, np.full_like(clip[0][:, :8], 255)], axis=1) for clip in framed]
    rows = [np.concatenate(strips[at : at + 3], axis=1)[:, :-8] for at in range(0, len(strips), 3)]
    target = ROOT / "docs" / "images" / "demo.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(target, np.concatenate(rows, axis=0))


def main() -> None:
    """Run the demo where needed, store its numbers as tables."""
    if "--stored" not in sys.argv[1:]:
        subprocess.run([sys.executable, "-m", "tats.demo", "--fresh"], check=True, cwd=ROOT)
    result = json.loads((ROOT / "runs" / "demo" / "demo.json").read_text(encoding="utf-8"))
    if result["size"] != "full":
        sys.exit("runs/demo holds the tiny demo; its numbers say nothing")
    seconds = result["seconds"]
    rows = [[TITLES[name], round(value)] for name, value in seconds.items()]
    rows.append(["all of it, in minutes", round(result["total_seconds"] / 60, 1)])
    weights = result["weights"]
    note = (
        f"VQGAN {weights['vqgan'] / 1e6:.2f} million weights, transformer {weights['gpt'] / 1e6:.2f} million; "
        "without the installation; steps that an earlier call had finished count with the seconds they took there"
    )
    store("demo_times", ["step", "seconds"], rows, command=COMMAND, note=note, details=result)
    scores = result["scores"]
    names = {
        "right_object": "right object in every frame",
        "motion": "at least 9 of 10 steps agree with the motion",
        "valid": "valid: object, motion, speed and turns",
    }
    table = [[title, *(str(Count(*scores[who][name])) for who in scores)] for name, title in names.items()]
    reconstructed = f"reconstructions ({result['psnr_db']:.1f} dB)"
    columns = ["share of clips", "real test clips", reconstructed, "samples"]
    note = (
        "Samples of seeds 0 to 239; brackets are 95 % Wilson intervals. "
        f"{result['nearest']['copies']} of {result['nearest']['n_generated']} samples are an exact copy of a training "
        f"clip, by codes. Distance of the samples' spread from the data's (total variation; in brackets the test "
        f"clips'): " + ", ".join(f"{k} {v['samples']} ({v['test clips']})" for k, v in result["spread"].items())
    )
    store("demo_scores", columns, table, command=COMMAND, note=note)
    classes = [
        [name.replace("_", " "), str(Count(*row["right_object"])), str(Count(*row["valid"]))]
        for name, row in result["classes"].items()
    ]
    picture()
    store("demo_classes", ["class", "right object", "valid"], classes, command=COMMAND)


if __name__ == "__main__":
    main()
