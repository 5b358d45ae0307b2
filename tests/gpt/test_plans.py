"""Plans as integers, without a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tats.flags import UserError
from tats.gpt.layout import Layout
from tats.gpt.plans import Window, plan_between, plan_long, plan_short, plan_wide, plan_wide_as_published


def made(plan):
    """Frames in the order in which a plan invents them."""
    return [window.frames[place] for window in plan for place in window.new]


def test_a_short_clip_is_one_window():
    assert list(plan_short(4)) == [Window(range(4), range(4))]
    assert list(plan_short(4, known=3)) == [Window(range(4), range(3, 4))]
    assert list(plan_short(4, known=4)) == []


def test_a_long_video_goes_frame_by_frame_behind_its_context():
    assert list(plan_long(4, 2)) == [
        Window(range(2), range(2)),
        Window(range(3), range(2, 3)),
        Window(range(1, 4), range(2, 3)),
    ]
    assert plan_long(3, 1, step=4)[-1] == Window(range(4, 9, 4), range(1, 2))
    assert list(plan_long(2, 0)) == [Window(range(1), range(1)), Window(range(1, 2), range(1))]


@given(st.integers(0, 5), st.integers(0, 12), st.integers(1, 4), st.integers(0, 14))
def test_every_frame_is_made_once_and_sees_only_frames_that_are_there(context, more, step, known):
    total = context + more
    plan = plan_long(total, context, step, known)
    assert made(plan) == [frame * step for frame in range(known, total)]
    there = {frame * step for frame in range(known)}
    for window in plan:
        assert {window.frames[place] for place in range(window.new.start)} <= there
        there |= {window.frames[place] for place in window.new}


@given(st.integers(1, 4), st.integers(2, 5), st.integers(0, 20))
def test_gaps_are_filled_between_coarse_frames_and_behind_known_ones(gaps, step, known):
    total = gaps * step + 1
    frames = made(plan_between(total, step, known))
    assert frames == [frame for frame in range(known, total) if frame % step]


@given(st.integers(1, 3), st.integers(0, 4), st.integers(0, 4), st.integers(0, 2))
def test_wide_windows_make_every_code_once_and_in_front_of_what_follows(context, rows, columns, total):
    height, width = 3 + rows, 2 + columns
    there = set()
    for window in plan_wide(context + total, (height, width), (3, 2), context):
        frame = window.frames[window.new]
        assert frame - window.frames.start <= context
        for row in window.new_rows:
            for column in window.new_columns:
                before = [(frame, window.rows[r], window.columns[c]) for r in range(row + 1) for c in range(2)
                          if (r, c) < (row, column)]  # fmt: skip
                assert there.issuperset(before)
                there.add((frame, window.rows[row], window.columns[column]))
    assert len(there) == (context + total) * height * width


def test_published_windows_slide_code_by_code():
    plan = plan_wide_as_published(3, (5, 5), (2, 4, 4), 0)
    assert len(plan) == 75
    first, last = plan[0], plan[-1]
    assert (first.frames, first.rows, first.columns, first.new) == (range(2), range(4), range(4), 0)
    assert (last.frames, last.rows, last.columns, last.new) == (range(1, 3), range(1, 5), range(1, 5), 1)


def test_a_context_without_room_is_refused():
    with pytest.raises(UserError, match="Take 0 to 3"):
        plan_wide_as_published(4, (4, 4), (4, 4, 4), 4)
    with pytest.raises(UserError, match="more than the 2 latent frames"):
        plan_long(2, 3)


def test_codes_of_a_place_stand_behind_condition_and_earlier_frames():
    layout = Layout(n_cond=3, frames=5, height=2, width=4, code_offset=7)
    assert (layout.frame_len, layout.length, layout.start(0), layout.start(2)) == (8, 42, 3, 19)
