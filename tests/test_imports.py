"""Who may import whom, read from the import lines; and what imports without the packages that only readers need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("tats/**/*.py"), *ROOT.glob("kernels/**/*.py"), *ROOT.glob("*.py")])

# From the bottom up. A file belongs to the first entry that its module name begins with; it imports its own entry and
# those of lower rows, and no other.
ROWS = [
    ["tats.kernels"],
    ["tats.flags tats.flags_line tats.flags_values tats.limits tats.plain", "tats.launched"],
    [
        "tats.video",
        "tats.trainer_config tats.score_config",
        "tats.weights tats.released tats.unpickle",
        "tats.folders tats.arrays tats.opened",
        "tats.whole_files tats.shards",
    ],
    ["tats.media tats.gif tats.sound", "tats.reader"],
    ["tats.vqgan", "tats.gpt"],
    ["tats.data", "tats.metrics"],
    ["tats.checkpoint tats.published tats.convert"],
    [
        "tats.training tats.callbacks tats.metrics_callback tats.run_folder tats.logs tats.tensorboard tats.ema "
        "tats.checkpoints tats.resume tats.stopping tats.schedule tats.not_a_number tats.throughput tats.sharded "
        "tats.effective tats.wandb_log tats.compiling tats.self_test"
    ],
    [
        "tats.vqgan.train tats.vqgan.train_setup tats.vqgan.pictures",
        "tats.gpt.train tats.gpt.train_setup tats.gpt.train_condition tats.gpt.sample_config",
    ],
    ["scripts"],
]
SIDEWAYS = {("tats.metrics", "tats.data")}  # metrics know the embedded dataset; data know no metrics
NOT_BELOW = {(upper, lower) for upper in ("tats.data", "tats.metrics") for lower in ("tats.vqgan", "tats.gpt")}
LIGHTNING = {
    "tats.training",
    "tats.callbacks",
    "tats.checkpoints",
    "tats.resume",
    "tats.stopping",
    "tats.effective",
    "tats.ema",
    "tats.metrics_callback",
    "tats.not_a_number",
    "tats.sharded",
    "tats.throughput",
    "tats.wandb_log",
    "tats.logs",
    "tats.shown_clips",
    "tats.vqgan.train",
    "tats.gpt.train",
}
LAZY = {"av", "imageio", "ftfy", "skvideo", "h5py", "soundfile", "triton", "tokenizers"}


def module_of(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return "tats." + name if name.startswith("kernels") else name


def place_of(module):
    """Row and entry of a module; whatever has no entry stands with the scripts."""
    best = (len(ROWS) - 1, "scripts", "")
    for row, entries in enumerate(ROWS):
        for entry in entries:
            for name in entry.split():
                if (module == name or module.startswith(name + ".")) and len(name) > len(best[2]):
                    best = (row, entry.split()[0], name)
    return best[0], best[1]


def imports_of(path, top_only=False):
    """(line, module) of every import of a file; with `top_only`, of those that run when it is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef)) or _type_checking(outer)
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if top_only and id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module_of(path).split(".")
            package = package if path.name == "__init__.py" else package[:-1]
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(each for each in (base, node.module) if each)
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}" if is_module(f"{module}.{alias.name}") else module


def _type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


MODULES = {module_of(path) for path in FILES}


def is_module(name):
    return name in MODULES


def complaints():
    for path in FILES:
        row, entry = place_of(module_of(path))
        for line, module in imports_of(path):
            if not module.startswith("tats") or module == "tats":
                continue
            to_row, to_entry = place_of(module)
            if to_entry == entry or (entry, to_entry) in SIDEWAYS:
                continue
            if to_row >= row or (entry, to_entry) in NOT_BELOW:
                yield f"{path.relative_to(ROOT)}:{line} imports {module}: {entry} must not know {to_entry}"


def test_imports_only_go_down():
    found = list(complaints())
    assert not found, "\n".join(found)


def test_the_rows_tell_files_apart():
    assert place_of("tats.vqgan.train") == (8, "tats.vqgan.train")
    assert place_of("tats.vqgan.train_config") == (4, "tats.vqgan")
    assert place_of("tats.kernels.attention.fused") == (0, "tats.kernels")
    assert place_of("tats.report") == (9, "scripts")


def test_only_training_files_import_lightning():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in FILES
        for line, module in imports_of(path)
        if module.split(".")[0] in ("pytorch_lightning", "lightning") and module_of(path) not in LIGHTNING
    ]
    assert not found, found


def test_readers_of_files_and_triton_are_imported_where_they_are_used():
    found = [
        f"{path.relative_to(ROOT)}:{line} {module}"
        for path in FILES
        for line, module in imports_of(path, top_only=True)
        if module.split(".")[0] in LAZY and path.name != "fused.py"
    ]
    assert not found, found


def test_configs_import_nothing_but_flags():
    found = [
        f"{path.relative_to(ROOT)}:{line} {module}"
        for path in FILES
        if path.name.endswith("config.py")
        for line, module in imports_of(path, top_only=True)
        if module.split(".")[0] not in sys.stdlib_module_names
        and not module.startswith("tats.flags")
        and not module.endswith("config")
    ]
    assert not found, found


BLOCKED = """
import sys
for name in {names!r}:
    sys.modules[name] = None
import tats, tats.flags, tats.video, tats.kernels
import tats.vqgan.model, tats.vqgan.config, tats.gpt.model, tats.gpt.api, tats.checkpoint
import torch
from tats.vqgan.config import VQGANConfig
vqgan = tats.vqgan.model.VQGAN(VQGANConfig(n_codes=8, embedding_dim=8, n_hiddens=16, downsample=(2, 2, 2), resolution=8,
                                           sequence_length=4)).eval()
codes = vqgan.encode(torch.zeros(1, 3, 4, 8, 8))
assert vqgan.decode(codes).shape == (1, 3, 4, 8, 8)
print("pytorch_lightning" in sys.modules)
"""


def test_models_need_no_reader_no_triton_and_no_lightning():
    program = BLOCKED.format(names=sorted(LAZY))
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("module", ["tats", "tats.flags", "tats.trainer_config", "tats.score_config", "tats.__main__"])
def test_light_modules_do_not_import_torch(module):
    program = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
