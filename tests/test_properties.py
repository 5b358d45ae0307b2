"""Whatever stands in a file of text: readers succeed or say what is wrong, for values that hypothesis makes up."""

import json
import string

import numpy as np
import yaml
from code_parts import random_codes, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tats import flags
from tats.data.captions import read_captions
from tats.data.code_index import read_index
from tats.data.codes import CodeShards
from tats.data.config import DataConfig
from tats.data.pickled_arrays import load
from tats.data.safe_zip import wrong_name
from tats.flags import UserError
from tats.plain import MOST_TEXT, matches, plain_text
from tats.vqgan.train_config import VQGANTrainConfig

SMALL = settings(
    max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = [flag.name for flag in flags.collect(VQGANTrainConfig) if flag.is_flag]


def ends_well(read):
    """What a reader gives, None where it refuses."""
    try:
        return read()
    except UserError as error:
        assert len(str(error)) < 5000
        return None


@SMALL
@given(st.dictionaries(st.sampled_from(NAMES), PLAIN, max_size=3))
def test_settings_of_any_values(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("yaml") / "run.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=False), encoding="utf-8")
    ends_well(lambda: flags.parse(VQGANTrainConfig, ["--config", str(path)]))


@SMALL
@given(PLAIN)
def test_captions_of_any_form(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("captions") / "captions.json"
    for whole in (content, {"data": content}, {"a.mp4": content}):
        path.write_text(json.dumps(whole), encoding="utf-8")
        for texts in (ends_well(lambda: read_captions(path)) or {}).values():
            assert all(isinstance(text, str) and text.strip() for text in texts)


@SMALL
@given(st.text(max_size=200) | st.text(st.characters(categories=["Cc", "Cs"]), max_size=20))
def test_texts_can_be_shown_and_written(text):
    shown = plain_text(text)
    assert len(shown) == len(text) <= MOST_TEXT and not set(shown) & set(map(chr, range(32)))
    shown.encode("utf-8")


@SMALL
@given(st.data())
def test_an_index_of_codes_with_any_entry_changed(tmp_path_factory, data):
    folder = write(tmp_path_factory.mktemp("codes"), random_codes())
    path = folder / "train" / "index.json"
    content = json.loads(path.read_text())
    key = data.draw(st.sampled_from(sorted(content)))
    inside = content[key] if isinstance(content[key], list) and content[key] and data.draw(st.booleans()) else None
    if inside is not None:
        inside[data.draw(st.integers(0, len(inside) - 1))] = data.draw(PLAIN)
    else:
        content[key] = data.draw(PLAIN)
    path.write_text(json.dumps(content), encoding="utf-8")
    index = ends_well(lambda: read_index(folder / "train"))
    source = index and ends_well(lambda: CodeShards(DataConfig(str(folder), vtokens=True), "train"))
    if source:
        codes = source.read(0, 0, np.random.default_rng(0))["video"]
        assert 0 <= codes.min() <= codes.max() < source.n_codes


@SMALL
@given(st.lists(st.sampled_from(["..", ".", "", "a", "b.png", "C:", "\\", "\n", " "]), max_size=4), st.booleans())
def test_names_that_pass_stay_inside(parts, absolute):
    import posixpath

    name = "/" * absolute + "/".join(parts)
    if wrong_name(name) is None:
        inside = posixpath.normpath(posixpath.join("/data", name))
        assert inside.startswith("/data/") and "\\" not in name and name.isprintable()


@SMALL
@given(st.binary(max_size=60) | st.text(string.printable, max_size=60).map(lambda text: b"\x80\x04" + text.encode()))
def test_pickles_of_any_bytes(data):
    ends_well(lambda: load(data))


@SMALL
@given(PLAIN)
def test_types_of_plain_values(value):
    for kind in (int, float, str, bool, list[int], dict[str, int], tuple[int, int, int], int | None):
        matches(kind, value)
    assert matches(type(value) if value is not None else None, value)
