"""The table of docs/parity.md: what was compared with the published system, and how far it lies apart.

    TATS_PARITY_RECORD=build/parity.json python -m pytest ...      the tests compare and remember
    python -m tests.parity_table build/parity.json docs/parity.md  the table; the record goes to benchmarks/results

`make parity` does both. Every case and every output must have been compared, or stand in `NOT_COMPARED`.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "tests" / "reference"
STORED = ROOT / "benchmarks" / "results" / "parity.json"

# outputs that no test compares: case -> {output: reason}
NOT_COMPARED: dict[str, dict[str, str]] = {
    "data": {
        "hdf5/test_nosentinel/randint_ranges0": "without an end mark the published reader lets the first of two videos "
        "run on into the second and loses the second; here each ends where it ends"
    }
}

WHAT = {
    "bpe": "byte pairs: ids, cleaned and decoded texts, rows of fixed length",
    "ckpt_legacy": "a checkpoint of an older trainer: settings and weights",
    "codebook": "codebook: averages, restart, start from data, tiling, gradients",
    "cond_stft": "transformer by sound: codes of sounds, logits, loss, sampling",
    "cond_text": "transformer by text: logits, loss, sampling",
    "data": "preprocessing, frame folders, HDF5 with frames and codes, STFT windows, grids, accuracy",
    "discriminators": "critics of images and videos: all features, training and evaluation",
    "fvd_i3d": "I3D: logits and inner values",
    "fvd_stats": "Frechet and kernel distances, preprocessing for I3D",
    "gpt_interp": "transformer that fills in frames: mask, logits, loss, sampling",
    "gpt_label": "transformer by class: logits, loss, gradients, one AdamW step, pkeep",
    "gpt_latent_stride": "transformer over every second latent frame: the same",
    "gpt_spatial": "transformer with a table of places: logits, cached decoding, sampling beyond the picture",
    "gpt_uncond": "transformer without condition: the same as by class",
    "gpt_vtokens": "transformer from codes computed beforehand, with places",
    "lpips": "perceptual distance, per layer, and gradients",
    "optimizer": "parameter groups and learning-rate rules",
    "sampling_base": "cached sampling: greedy and with given random numbers, every setting of filters",
    "sampling_filter": "top-k and top-p filters",
    "sampling_hierarchical": "coarse frames, then the frames between",
    "sampling_long_fast": "sliding window with every context",
    "vqgan_asym_constant": "VQGAN 4x2x1, zero padding: all stages and losses",
    "vqgan_asym_reflect": "VQGAN 1x4x4, reflecting padding",
    "vqgan_batchnorm": "VQGAN 4x8x8, batch normalisation",
    "vqgan_fullkeys": "VQGAN with every key of a released file",
    "vqgan_groupnorm": "VQGAN 2x2x2, group normalisation",
    "vqgan_tiny": "VQGAN 2x2x2, the first stage of all transformers here",
    "vqgan_trainstep": "training of both players in six variants: losses, gradients, two whole batches",
}

Record = dict[str, dict[str, dict[str, Any]]]

HEAD = """# Parity with the published system

Made by `make parity`; a test fails when this page and the stored record disagree, or when an output of a reference case
is compared by no test. The cases (`tests/reference/`) hold inputs and outputs of the published code, run by its own
functions on a CPU.

An output may differ by as much as two honest float32 computations of it: 8 times the difference between the published
code in float64 and in float32, plus two millionths of its largest value. Codes, tokens, labels, counts and masks must
be equal. "Largest share" is the largest difference of a case in units of what is allowed: below 1 passes, 0 is bit for
bit. "Largest difference" is that of the same output.

| case | what | outputs | numbers compared | largest difference | largest share | left out |
|---|---|---|---|---|---|---|
"""


def cases() -> list[str]:
    """Every case there is."""
    return sorted(path.parent.name for path in REFERENCE.glob("*/meta.json"))


def meta(case: str) -> dict[str, Any]:
    """What a case says of itself."""
    return json.loads((REFERENCE / case / "meta.json").read_text())


def uncovered(record: Record) -> list[str]:
    """`case/output` of everything that was neither compared nor excused, and excuses that are no longer needed."""
    found = []
    for case in cases():
        seen, excused = set(record.get(case, {})), set(NOT_COMPARED.get(case, {}))
        wanted = set(meta(case).get("outputs") or {})
        found += [f"{case}/{key}: not compared" for key in sorted(wanted - seen - excused)]
        found += [f"{case}/{key}: compared, yet listed as not compared" for key in sorted(seen & excused)]
        if not seen:
            found.append(f"{case}: nothing compared")
    return found


def shown(number: float) -> str:
    """Two digits, or 0."""
    return "0" if number == 0 else f"{number:.1e}"


def share(output: dict[str, Any]) -> float:
    """The difference in units of what is allowed."""
    return output["difference"] / output["tolerance"] if output["tolerance"] else 0.0


def row(case: str, outputs: dict[str, dict[str, Any]]) -> str:
    """One line of the table."""
    worst = max(outputs, key=lambda key: share(outputs[key]))
    left = sum(output["left_out"] for output in outputs.values())
    reasons = sorted({output["reason"] for output in outputs.values() if output["left_out"]})
    numbers = sum(output["entries"] for output in outputs.values())
    name = f" (`{worst}`)" if share(outputs[worst]) else ""
    cells = [
        f"`{case}`",
        WHAT[case],
        f"{len(outputs)}",
        f"{numbers:,}",
        shown(outputs[worst]["difference"]) + name,
        f"{share(outputs[worst]):.2f}" if share(outputs[worst]) else "0",
        f"{left:,}: {'; '.join(reasons)}" if left else "none",
    ]
    return "| " + " | ".join(cells) + " |"


def page(record: Record) -> str:
    """The whole page."""
    lines = [row(case, record[case]) for case in cases()]
    outputs = [output for case in cases() for output in record[case].values()]
    exact = sum(output["tolerance"] == 0 or output["difference"] == 0 for output in outputs)
    total = (
        f"\n{len(lines)} cases, {len(outputs)} outputs, {sum(output['entries'] for output in outputs):,} numbers; "
        f"{exact} outputs are equal to the last bit, the others take at most "
        f"{max(share(output) for output in outputs):.2f} of what is allowed. "
        f"{sum(output['left_out'] for output in outputs):,} entries are left out, for the reasons in the table.\n"
    )
    excused = [f"- `{case}/{key}`: {why}" for case, keys in sorted(NOT_COMPARED.items()) for key, why in keys.items()]
    skipped = (
        "\nNo case and no output is skipped.\n" if not excused else "\nNot compared:\n\n" + "\n".join(excused) + "\n"
    )
    return HEAD + "\n".join(lines) + "\n" + total + skipped


def main(record_path: str, page_path: str) -> None:
    """Check that nothing is missing, store the record, write the page."""
    record: Record = json.loads(Path(record_path).read_text())
    missing = uncovered(record)
    if missing:
        raise SystemExit("not everything was compared (run all tests):\n" + "\n".join(missing))
    kept = {case: {key: record[case][key] for key in sorted(record[case])} for case in cases()}
    STORED.parent.mkdir(parents=True, exist_ok=True)
    STORED.write_text(json.dumps(kept, indent=1) + "\n")
    Path(page_path).write_text(page(kept))
    print(f"{page_path}: {len(kept)} cases")


if __name__ == "__main__":
    main(*sys.argv[1:3])
