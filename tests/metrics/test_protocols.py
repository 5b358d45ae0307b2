"""Protocols as data: names, changes, and which clips they take."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest

from tats.flags import UserError
from tats.metrics.clip_choice import choose, offset_of
from tats.metrics.protocols import PROTOCOLS, find, mean_and_deviation
from tats.released import ALL


@dataclass
class Videos:
    """Videos of some lengths as a source of clips."""

    lengths: list
    span: int = 16

    @property
    def starts(self):
        return np.array(self.lengths) - self.span + 1

    @property
    def clips(self):
        return np.array(self.lengths) // self.span


def test_every_published_evaluation_has_an_entry_and_its_network_a_name():
    names = [protocol.name for protocol in PROTOCOLS]
    assert len(names) == len(set(names))
    for family in ("tats", "stylegan-v", "longvideogan", "magvit", "larp", "omnitokenizer", "nbp", "teco", "cd-fvd"):
        assert find(family).name.split("/")[0] == family
    assert {protocol.network for protocol in PROTOCOLS} - {"file"} <= set(ALL)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_a_recipe_is_itself_and_any_other_choice_is_said(protocol):
    assert protocol.label == protocol.name and not protocol.changes and find(protocol.name) is protocol
    json.dumps(protocol.choices)
    others = {
        **{"n_generated": 7, "n_real": 7, "frames": 5, "stride": 3, "size": (8, 9), "resize": "antialias", "offset": 2},
        **{"ddof": 1 - protocol.ddof, "split": "val", "network": "mine", "real_clips": "else", "group": 3},
    }
    for name, value in others.items():
        if protocol.kind == "pairs" and name == "frames":
            value = protocol.context + 1
        changed = protocol.with_choices(**{name: value})
        assert changed.label == f"{protocol.name} (modified)"
        assert list(changed.changes) == [name] and f"{name} " in changed.changed_line
    assert protocol.with_choices(**dict.fromkeys(others)) == protocol
    assert {each.name for each in fields(protocol)} == {"name", "source", *protocol.choices}


def test_the_page_lists_every_protocol():
    page = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
    assert [p.name for p in PROTOCOLS if f"| `{p.name}` |" not in page] == []


def test_seeds_and_runs_change_a_recipe_only_where_it_states_them():
    assert find("tats").with_choices(seed=3, runs=2).label == "tats"
    assert find("magvit").with_choices(runs=2).changes == {"runs": (4, 2)}
    assert find("cd-fvd").with_choices(seed=3).label == "cd-fvd/16f (modified)"


def test_the_facts_of_the_sources():
    tats, stylegan, long, teco = map(find, ("tats", "stylegan-v", "longvideogan/fvd2048_128f", "teco"))
    assert (tats.ddof, stylegan.ddof, long.ddof, teco.ddof) == (1, 0, 0, 1)
    assert (tats.real_clips, stylegan.real_clips, long.real_clips) == ("windows", "first", "visits")
    assert (tats.levels, stylegan.levels, long.levels) == ("truncated", "rounded", "rounded")
    assert (teco.group, teco.split, long.offset, long.frames) == (256, "test", 31, 128)
    sparse = find("stylegan-v/fvd2048_128f_subsample8f")
    assert (sparse.frames, sparse.stride, sparse.generated_stride, sparse.span) == (16, 8, 8, 121)
    assert find("longvideogan/fid50k_full").by_video and not find("stylegan-v/fid50k_full").by_video
    assert find("stylegan-v/isv2048_ucf").seed == 42 and find("magvit").runs == 4


def test_mistakes_get_one_line():
    for call, said in (
        (lambda: find("stylegn-v/fvd2048_16f"), "did you mean"),
        (lambda: find("tats").with_choices(n_real=0), "--n_real must be at least 1"),
        (lambda: find("teco/pairs").with_choices(frames=144), "--context 144 leaves nothing"),
        (lambda: find("tats").with_choices(ddof=2), "--ddof is 0"),
        (lambda: find("tats").with_choices(offset=-1), "count frames"),
    ):
        with pytest.raises(UserError, match=said):
            call()


def test_first_takes_one_window_of_each_of_the_first_videos():
    chosen = choose(find("stylegan-v"), Videos([20, 40, 16, 90]), seed=5)
    assert chosen.videos.tolist() == [0, 1, 2, 3] and chosen.starts[2] == 0
    assert ((chosen.starts >= 0) & (chosen.starts <= np.array([4, 24, 0, 74]))).all()
    assert choose(find("stylegan-v"), Videos([20, 40, 16]), seed=5, limit=2).videos.tolist() == [0, 1]
    again = choose(find("stylegan-v"), Videos([20, 40, 16, 90]), seed=6)
    assert chosen.starts.tolist() != again.starts.tolist()


def test_visits_go_through_all_videos_before_one_comes_again():
    chosen = choose(find("longvideogan/fvd2048_16f"), Videos([30] * 7), seed=0, limit=24)
    rounds = [sorted(chosen.videos[start : start + 7].tolist()) for start in (0, 7, 14)]
    assert rounds == [list(range(7))] * 3 and len(chosen) == 24
    assert len(set(zip(chosen.videos.tolist(), chosen.starts.tolist()))) > 14


def test_windows_are_those_of_the_training_loader_and_fill_up():
    chosen = choose(find("tats"), Videos([16, 48, 33]), seed=0)
    assert len(chosen) == 2048
    shares = np.bincount(chosen.videos[:6], minlength=3)
    assert shares.tolist() == [1, 3, 2]  # as many as fit side by side
    assert (chosen.starts <= np.array([0, 32, 17])[chosen.videos]).all()


def test_consecutive_and_frames():
    chosen = choose(find("teco").with_choices(frames=16), Videos([16, 50]), seed=0)
    assert list(zip(chosen.videos.tolist(), chosen.starts.tolist())) == [(0, 0), (1, 0), (1, 16), (1, 32)]
    every = choose(find("longvideogan/fid50k_full"), Videos([2, 4], span=1), seed=0)
    assert every.videos.tolist() == [0, 0, 1, 1, 1, 1] and every.weights.tolist() == [0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


def test_offsets_stay_inside_the_video_and_belong_to_the_clip():
    long = find("longvideogan/fvd2048_16f")
    found = [offset_of(long, 100, clip, seed=1) for clip in range(400)]
    assert min(found) == 0 and max(found) == 31 and found[7] == offset_of(long, 100, 7, seed=1)
    assert max(offset_of(long, 3, clip, seed=1) for clip in range(50)) == 3
    assert offset_of(find("tats"), 100, 3, seed=1) == 0


def test_deviations_are_those_of_the_population():
    assert mean_and_deviation([1.0, 3.0]) == (2.0, 1.0)
