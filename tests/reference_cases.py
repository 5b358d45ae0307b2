"""Reference cases: inputs and outputs of the published system, and the comparison with ours.

A case is a folder of `tests/reference/` with `meta.json` (what was run, and per output how far two ways of computing
it in the published code itself lie apart), `inputs.npz`, `outputs.npz` and, for some, checkpoints.
`case.check(key, value)` compares and remembers the largest difference; `make parity` makes the table of
`docs/parity.md` from that.
"""

import atexit
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = Path(__file__).resolve().parent / "reference"
RECORD: dict[str, dict[str, dict[str, Any]]] = {}  # case -> output -> what was compared; filled by every `check`


class Case:
    """One reference case.

    `meta` dict, `inputs` and `outputs` dicts of numpy arrays (empty where the case has none), `path` its folder.
    """

    def __init__(self, name: str):
        self.name = name
        self.path = REFERENCE / name
        self.meta: dict[str, Any] = json.loads((self.path / "meta.json").read_text())
        self.inputs = self._arrays("inputs.npz")
        self.outputs = self._arrays("outputs.npz")

    def _arrays(self, file: str) -> dict[str, np.ndarray]:
        path = self.path / file
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def file(self, name: str) -> Path:
        """A file of the case, `vqgan.ckpt` say; checkpoints shared between cases are found through `refs.json`."""
        refs = self.path / "refs.json"
        shared = json.loads(refs.read_text()) if refs.exists() else {}
        return (self.path / shared.get(name, name)).resolve()

    def json(self, name: str) -> Any:
        """The content of a JSON file of the case, `cfg.json` say."""
        return json.loads((self.path / name).read_text())

    def tolerance(self, key: str) -> float:
        """What two honest float32 computations of this output may lie apart."""
        facts = self.meta["outputs"][key]
        return 8 * facts.get("maxabsdiff_float64_vs_float32", 0.0) + 2e-6 * facts.get("absmax", 0.0)

    def check(self, key: str, value: Any, *, leave_out: Any = None, reason: str = "") -> None:
        """Assert that `value` is the output `key`: integers and booleans equal, floats within `tolerance(key)`.

        `leave_out`: booleans that broadcast to the output, true for entries that `meta.json` calls ambiguous; they are
        counted under `reason`. Infinities must agree in place and sign.
        """
        expected = self.outputs[key]
        given = _array(value)
        assert given.shape == expected.shape, f"{self.name}/{key}: shape {given.shape}, reference {expected.shape}"
        kept = np.ones(expected.shape, bool)
        if leave_out is not None:
            assert reason, "entries are left out only with a reason"
            kept = ~np.broadcast_to(_array(leave_out).astype(bool), expected.shape)
        exact = expected.dtype.kind in "iubSU"
        difference = _difference(given[kept], expected[kept], exact)
        tolerance = 0.0 if exact else self.tolerance(key)
        self._record(key, difference, tolerance, int(kept.sum()), int((~kept).sum()), reason)
        assert difference <= tolerance, f"{self.name}/{key}: differs by {difference:.3g}, allowed {tolerance:.3g}"

    def check_fact(self, key: str, value: Any, expected: Any) -> None:
        """Assert that `value == expected` for a fact that `meta.json` (or another file of the case) states."""
        self._record(key, 0.0 if value == expected else float("inf"), 0.0, 1, 0, "")
        assert value == expected, f"{self.name}/{key}: {value!r}, reference {expected!r}"

    def _record(self, key: str, difference: float, tolerance: float, entries: int, left_out: int, reason: str) -> None:
        seen = RECORD.setdefault(self.name, {}).get(key)
        if seen is not None and seen["difference"] >= difference:
            return  # the same output compared by several tests: the largest difference counts
        RECORD[self.name][key] = {
            "difference": difference,
            "tolerance": tolerance,
            "entries": entries,
            "left_out": left_out,
            "reason": reason if left_out else "",
        }


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _difference(given: np.ndarray, expected: np.ndarray, exact: bool) -> float:
    """The largest difference; infinite where one is not finite and the other differs."""
    if exact:
        return 0.0 if np.array_equal(given, expected) else float("inf")
    given, expected = given.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(given[~finite], expected[~finite], equal_nan=True) or not np.isfinite(given[finite]).all():
        return float("inf")
    return float(np.abs(given[finite] - expected[finite]).max(initial=0.0))


def _write_record() -> None:
    """At the end of a run: store what was compared where TATS_PARITY_RECORD says (used by `make parity`)."""
    path = os.environ.get("TATS_PARITY_RECORD")
    if path and RECORD:
        Path(path).write_text(json.dumps(RECORD, indent=1, sort_keys=True))


atexit.register(_write_record)
