"""`tats VERB`: everything beside the six scripts. A verb is a module with a `main`, loaded when it is asked for."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from tats import flags
from tats.flags import UserError

VERBS = {  # verb -> (module, what it does)
    "shapes": ("tats.data.shapes", "write the embedded dataset: moving shapes with label, caption, sound and truth"),
    "prepare": (
        "tats.prepare",
        "videos into HDF5, zip files, folders of pictures, codes or spectrograms; or what a folder holds",
    ),
    "tokenize": ("tats.tokenize", "write the codes of a dataset once, to train from them"),
    "bpe": ("tats.bpe", "train a byte-pair vocabulary on the captions of a dataset"),
    "reconstruct": ("tats.reconstruct", "send a folder through a VQGAN: side by side, PSNR, SSIM, use of the codebook"),
    "evaluate": ("tats.evaluate", "score videos by a published protocol, compare two folders, train a judge"),
    "over_time": (
        "tats.over_time",
        "measure long videos window by window: do they hold up? With real ones beside them",
    ),
    "best": ("tats.best", "print the best checkpoint of a training run, by a score or the test loss"),
    "convert": ("tats.convert", "turn a checkpoint into a folder with safetensors"),
    "weights": ("tats.weights", "list published weights, or fetch and check them"),
    "report": ("tats.report", "make one self-contained page of a run"),
    "demo": ("tats.demo", "train both models on the embedded dataset, sample, judge, show it all on a page"),
}


def usage() -> str:
    """The page that `tats --help` prints."""
    width = max(map(len, VERBS)) + 4
    lines = [f"  {verb.ljust(width)}{text}" for verb, (_, text) in VERBS.items()]
    head = "usage: tats VERB [--flag value ...]\n\n`tats VERB --help` lists the flags of a verb.\n\nverbs:"
    return "\n".join([head, *lines])


def start(argv: Sequence[str]) -> Any:
    """Runs the verb that comes first in `argv` with the flags behind it.

    Raises:
        UserError: no verb, or one that does not exist.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb, rest = argv[0], list(argv[1:])
    if verb not in VERBS:
        raise UserError(f"unknown verb '{verb}'{flags.nearest(verb, VERBS)} (verbs: {', '.join(VERBS)})")
    sys.argv = [f"tats {verb}", *rest]
    return importlib.import_module(VERBS[verb][0]).main(rest)


def main() -> None:
    """The console script `tats`."""
    flags.run(lambda: start(sys.argv[1:]))


if __name__ == "__main__":
    main()
