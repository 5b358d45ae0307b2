"""Compiled parts of models, with the names and checkpoints of plain ones."""

from collections.abc import Iterable

from torch import nn


def compile_in_place(parts: Iterable[nn.Module]) -> None:
    """Have torch compile each of these modules at its next call.

    Modules keep their identity: names in the state dict, optimizers and checkpoints are those of plain models, and a
    run may go on with or without. Copies of a module (`copy.deepcopy`) are plain. Parts of one class are compiled once
    for all of them where nothing but their weights differs.
    """
    for part in parts:
        part.compile()
