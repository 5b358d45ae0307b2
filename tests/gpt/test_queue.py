"""A queue: every video has the codes that it has alone, and the next one starts as soon as one ends."""

import pytest
import torch
from gpt_parts import tiny_gpt

import tats
from tats.flags import UserError
from tats.gpt.api import sample_codes, sample_long_codes
from tats.gpt.course import Change
from tats.gpt.queue import Request, sample_queue, sample_queue_frames
from tats.gpt.steps import Steps

SETTINGS = {"top_k": 20, "top_p": 0.9, "temperature": 1.2, "top_p_init": 1.0, "temperature_init": 2.0}
GIVEN = ("label", "text", "sound", "cfg_scale", "schedule")


def alone(gpt, request, **settings):
    """The codes [t, h, w] of a request, sampled by itself."""
    given = {name: getattr(request, name) for name in GIVEN}
    more = {name: value for name, value in given.items() if value is not None and name != "schedule"} | settings
    known = None if request.known is None else request.known[None]
    if request.context is None:
        return sample_codes(gpt, request.frames, seeds=[request.seed], known=known, **more)[0]
    where = {"known": known, "start": request.start, "schedule": request.schedule}
    made = sample_long_codes(gpt, request.frames, request.context, seeds=[request.seed], **where, **more)
    return torch.stack(list(made), 1)[0]


def by_class():
    """Requests of all kinds and lengths, some of which go on from given codes."""
    gpt = tiny_gpt((4, 2, 3))
    given = alone(gpt, Request(9, 1, 2, label=0), **SETTINGS)
    return gpt, [
        Request(9, 1, 2, label=0),
        Request(3, 2, label=1),
        Request(4, 3, 0, label=2),
        Request(7, 4, 3, label=0, schedule=[Change(2, label=1), Change(5, label=2)]),
        Request(4, 5, label=1),
        Request(9, 1, 2, label=0, known=given[:1]),
        Request(9, 1, 2, label=0, known=given[3:5], start=3),
        Request(2, 6, label=1, known=given[:2]),
        Request(2, 7, 2, label=1),
    ]


def by_label_and_guidance():
    """Requests of which some are guided, and one is as if it had no condition."""
    gpt = tiny_gpt((3, 2, 2), conditions=[("label", 1, 3)], empty=True)
    scales = [1.0, 3.0, 0.0, 1.5]
    rest = [Request(5, 8, 2, label=0, schedule=[Change(0, label=1), Change(2, cfg_scale=2.0)])]
    return gpt, [Request(n + 2, n, 1, label=n % 3, cfg_scale=scales[n]) for n in range(4)] + rest


def by_sound():
    """Requests with sounds that run beside the video, one of them of one window."""
    gpt = tiny_gpt((3, 2, 2), key="stft", n_cond=6)
    sounds = [torch.randint(3, (t, 1, 2), generator=torch.Generator().manual_seed(t)) for t in (7, 3, 5)]
    return gpt, [Request(n, n, 2, sound=sound) for n, sound in zip((7, 4, 5), sounds)]


@pytest.mark.parametrize("make", [by_class, by_label_and_guidance, by_sound])
@pytest.mark.parametrize("decode", ["raster", "jacobi", "diagonal"])
def test_videos_of_a_queue_have_the_codes_that_they_have_alone(make, decode):
    gpt, requests = make()
    expected = [alone(gpt, request, **SETTINGS) for request in requests]
    for batch in (1, 2, 99) if decode == "raster" else (3,):
        made = dict(tats.sample_queue(gpt, requests, batch, decode=decode, diagonal_lag=3, **SETTINGS))
        assert sorted(made) == list(range(len(requests)))
        assert all(torch.equal(made[number], codes) for number, codes in enumerate(expected))


def test_the_next_video_begins_where_one_ends_and_nobody_waits():
    gpt, lengths = tiny_gpt((3, 2, 2)), [2, 9, 3, 4]
    requests = [Request(length, seed, 2, label=1) for seed, length in enumerate(lengths)]
    counted = Steps()
    order = [number for number, _ in sample_queue_frames(gpt, requests, 2, steps=counted, **SETTINGS)]
    assert order == [0, 1, 0, 1, 2, 1, 2, 1, 2, 1, 3, 1, 3, 1, 3, 1, 3, 1]
    assert counted.windows == sum(lengths)
    ended = [number for number, _ in sample_queue(gpt, requests, 2, **SETTINGS)]
    assert ended == [0, 2, 3, 1]
    at_once = Steps()
    list(sample_queue_frames(gpt, [Request(9, 0, 2, label=1)], 1, steps=at_once, **SETTINGS))
    assert counted.steps <= at_once.steps + 9  # the nine rounds of the longest; a first run goes on by one more step


def test_greedy_videos_of_a_model_in_float32_are_those_of_each_alone():
    gpt, requests = by_class()
    gpt = gpt.float()
    made = dict(sample_queue(gpt, requests[:5], 2, top_k=1))
    for number, request in enumerate(requests[:5]):
        assert torch.equal(made[number], alone(gpt, request, top_k=1))


def test_published_choices_hold_in_a_queue():
    gpt = tiny_gpt((3, 2, 2), code_offset=30, n_codes=8)  # most ids that are drawn are no codes
    requests = [Request(4, 0, 2, label=1), Request(3, 1, label=2)]
    made = dict(sample_queue(gpt, requests, 2, top_k=30, as_published=True))
    for number, request in enumerate(requests):
        assert torch.equal(made[number], alone(gpt, request, top_k=30, as_published=True))


def test_wrong_requests_are_told_by_their_number():
    gpt = tiny_gpt((3, 2, 2))
    good = Request(3, label=1)
    for wrong, said in [
        (Request(4, label=1), "request 1: 1 to 3 latent frames fit without a context, got 4"),
        (Request(4, 0, 3, label=1), "request 1: --temporal_sample_pos 3"),
        (Request(3, label=7), "request 1: "),
        (Request(3, label=1, known=torch.zeros(1, 2, 5, dtype=torch.long)), "request 1: known codes"),
    ]:
        with pytest.raises(UserError, match=said):
            sample_queue_frames(gpt, [good, wrong])
    with pytest.raises(ValueError, match="batch"):
        sample_queue_frames(gpt, [good], 0)
    assert list(sample_queue(gpt, [])) == []
