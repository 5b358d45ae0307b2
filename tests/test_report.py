"""The report page: whole, escaped, loaded from nowhere, with videos that browsers play."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tats import report
from tats.flags import UserError
from tats.media import write_video
from tats.metrics.counts import Count
from tats.plot import Curve, draw_curves, find_metrics, label, read_metrics, ticks
from tats.report import Clip, Page, Pair

VOID = {"meta", "br", "path", "circle", "link", "img"}
NASTY = '<script>alert("1")</script> & "quotes" http://example.org'


def clip(seed: int = 0, size: int = 32, frames: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)


class Reader(HTMLParser):
    """Collects tags and text of a page, and checks that every tag is closed in its turn."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute stands twice in {tag}"
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open and self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def full_page() -> Page:
    page = Page(f"Title {NASTY}", f"Lead {NASTY}")
    page.section(f"Clips {NASTY}", f"Note {NASTY}\n\nSecond paragraph.")
    page.videos([Clip(clip(), f"caption {NASTY}"), Clip(torch.from_numpy(clip(1)))])
    page.pairs([Pair(clip(), clip(1), (f"left {NASTY}", "right"), f"pair {NASTY}")])
    page.grid({f"class {NASTY}": [Clip(clip(2), "seed 0")]})
    page.section("Numbers")
    page.heading(f"Heading {NASTY}")
    page.scores({f"samples {NASTY}": {f"right {NASTY}": Count(3, 4), "PSNR": 34.5678}, "data": {"PSNR": None}})
    page.table([f"name {NASTY}", "n"], [[f"row {NASTY}", 12345]], f"table {NASTY}")
    page.curves({f"train {NASTY}": Curve([1, 2, 3], [3.0, 2.0, 1.0]), "test": Curve([3], [2.5])}, f"Loss {NASTY}")
    page.code(f"python run.py {NASTY}", f"code {NASTY}")
    return page


@pytest.fixture(scope="module")
def html() -> str:
    return full_page().html()


def test_nothing_is_loaded_from_elsewhere(html):
    for tag, attrs in Reader(html).tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form")
        for name, value in attrs.items():
            value = value or ""
            if name in ("src", "poster", "srcset", "data"):
                assert value.startswith("data:video/mp4;base64,")
            elif name in ("href", "xlink:href"):
                assert re.fullmatch(r"#[a-z0-9-]+", value)
            assert not name.startswith("on")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None and "url(" not in style[1] and "@import" not in style[1]


def test_it_is_whole_and_every_text_is_escaped(html):
    page = Reader(html)
    assert html.startswith("<!doctype html>")
    assert len(page.all("script")) == 1
    words = "".join(page.words)
    for start in ("Title", "Lead", "Clips", "Note", "caption", "left", "pair", "class", "Heading", "samples", "right",
                  "name", "row", "table", "train", "Loss", "python run.py", "code"):  # fmt: skip
        assert f"{start} {NASTY}" in words, start


def test_links_lead_to_sections_and_ids_are_unique(html):
    page = Reader(html)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for attrs in page.all("a")]
    assert len(links) == 2
    assert all(link is not None and link[1:] in ids for link in links)
    assert all(attrs["aria-labelledby"] in ids for attrs in page.all("section"))


def test_videos_and_diagrams_speak_to_those_who_do_not_see_them(html):
    page = Reader(html)
    videos = page.all("video")
    assert len(videos) == 4
    for attrs in videos:
        assert attrs["aria-label"]
        assert {"autoplay", "loop", "muted", "playsinline", "controls"} <= set(attrs)
    plots = [attrs for attrs in page.all("svg") if attrs.get("class") == "plot"]
    assert [attrs["role"] for attrs in plots] == ["img"]
    assert "test ends at 2.5" in (plots[0]["aria-label"] or "")
    assert {attrs.get("scope") for attrs in page.all("th")} == {"col", "row"}
    assert page.all("html")[0]["lang"] == "en"


def embedded(frames, fps: float = 8) -> tuple[bytes, int, int]:
    data, width, height = report.embed(frames, fps)
    return base64.b64decode(data), width, height


def test_videos_play_anywhere_and_small_ones_are_enlarged_by_a_whole_factor():
    frames = np.zeros((5, 32, 32, 3), np.uint8)
    frames[:, 8:16, 8:16] = 255, 40, 40
    data, width, height = embedded(frames)
    assert width == height == 128
    assert data.index(b"moov") < data.index(b"mdat")  # the index in front
    with av.open(BytesIO(data)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 8
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(stream)])
    assert shown.shape == (5, 128, 128, 3)
    middle = shown[:, ::4, ::4].astype(int)[:, :, :]
    assert np.abs(middle - frames).mean() < 4


@pytest.mark.parametrize("pix_fmt", ("yuv420p", "yuv444p"))
def test_a_video_file_is_taken_as_it_is_when_browsers_play_it(tmp_path, pix_fmt):
    path = tmp_path / "clip.mp4"
    write_video(path, clip(size=64), 10, pix_fmt=pix_fmt)
    data, width, height = embedded(path)
    assert (width, height) == (128, 128)
    assert (data == path.read_bytes()) == (pix_fmt == "yuv420p")
    with av.open(BytesIO(data)) as file:
        assert file.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert float(file.streams.video[0].average_rate) == 10


def test_a_clip_with_sound_carries_it_at_its_own_rate_and_has_a_button():
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    page = Page("A page", fps=8)
    page.videos([Clip(clip(frames=16), "with", sound=(tone, 16000), fps=16), Clip(clip(), "without")])
    reader = Reader(page.html())
    assert [attrs["class"] for attrs in reader.all("button") if "class" in attrs] == ["listen"]
    with_sound, without = (attrs["src"].split(",")[1] for attrs in reader.all("video"))
    with av.open(BytesIO(base64.b64decode(with_sound))) as file:
        heard = np.concatenate([frame.to_ndarray().ravel() for frame in file.decode(audio=0)])
        assert file.streams.video[0].average_rate == 16 and file.streams.audio[0].rate == 16000
        assert 15000 < len(heard) < 18000 and 0.3 < np.abs(heard).max() < 0.7
    with av.open(BytesIO(base64.b64decode(without))) as file:
        assert not file.streams.audio


def test_side_by_side_the_shorter_video_waits():
    both = report.side_by_side(clip(0, frames=3), clip(1, frames=5))
    assert both.shape == (5, 32, 66, 3)
    assert np.array_equal(both[:3, :, :32], clip(0, frames=3))
    assert np.array_equal(both[4, :, :32], clip(0, frames=3)[2])
    assert np.array_equal(both[:, :, 34:], clip(1, frames=5))


def test_a_page_that_is_too_large_is_not_written(tmp_path):
    page = Page("large", max_bytes=20_000)
    page.videos([Clip(clip(size=64))])
    with pytest.raises(UserError, match="at most 0 MB are allowed"):
        page.write(tmp_path / "index.html")
    assert list(tmp_path.iterdir()) == []
    assert report.MAX_BYTES == 20_000_000


def test_wrong_frames_and_rows_are_refused():
    page = Page("wrong")
    with pytest.raises(ValueError, match=r"uint8 \[T, H, W, 3\]"):
        page.videos([Clip(np.zeros((2, 8, 8, 3)))])
    with pytest.raises(ValueError, match="same height, got 32 and 16"):
        page.pairs([Pair(clip(), clip(size=16))])
    with pytest.raises(ValueError, match="a row has 1 cells, the table 2 columns"):
        page.table(["a", "b"], [["only one"]])


@pytest.mark.parametrize(
    "value, text",
    [(None, "–"), (True, "yes"), (12345, "12\u202f345"), (1.23456, "1.235"), (56789.4, "56\u202f789"), ("a", "a"),
     (float("nan"), "nan"), (Count(1, 2), "50.0 % (9.5-90.5 %), 1 of 2")],
)  # fmt: skip
def test_cells_are_readable(value, text):
    assert report.cell_text(value) == text


CSV = """epoch,step,train/loss,val/loss,train/bits_step
0,0,3.5,,1
0,1,2.5,,nan
0,1,,2.75,
1,2,inf,,0.5
1,3,2.0,,,extra
1,3,1.5
1,what,,,
"""


def test_curves_are_read_from_metrics_csv(tmp_path):
    (tmp_path / "metrics.csv").write_text(CSV + "1,4,1.2\0,")
    curves = read_metrics(tmp_path / "metrics.csv")
    assert curves["train/loss"] == Curve([0, 1, 3, 4], [3.5, 2.5, 1.5, 1.2])
    assert curves["val/loss"] == Curve([1], [2.75])
    assert curves["train/bits_step"] == Curve([0, 2], [1, 0.5])
    assert set(curves) == {"train/loss", "val/loss", "train/bits_step"}


def test_curves_of_a_resumed_run_are_one(tmp_path):
    for version, text in (("version_0", "step,loss\n0,3\n1,2\n2,9\n"), ("version_1", "step,loss\n2,1\n3,0.5\n")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "metrics.csv").write_text(text)
    assert find_metrics(tmp_path) == {"loss": Curve([0, 1, 2, 3], [3, 2, 1, 0.5])}
    (tmp_path / "empty").mkdir()
    assert find_metrics(tmp_path / "empty") == {}


@pytest.mark.parametrize(
    "low, high, log, expected",
    [(0, 20000, False, [0, 5000, 10000, 15000, 20000]), (0.05, 3.2, True, [0.05, 0.1, 0.2, 0.5, 1, 2]),
     (1e-6, 1, True, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1]), (-0.3, 0.3, False, [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3]),
     (4.01, 4.04, False, [4.01, 4.015, 4.02, 4.025, 4.03, 4.035, 4.04])],
)  # fmt: skip
def test_ticks_are_round_numbers(low, high, log, expected):
    assert ticks(low, high, log) == pytest.approx(expected)


@pytest.mark.parametrize("value, text", [(0, "0"), (5000, "5k"), (2.5e6, "2.5M"), (0.25, "0.25"), (1e-5, "1e-5")])
def test_tick_labels_are_short(value, text):
    assert label(value) == text


@pytest.mark.parametrize(
    "curve",
    [Curve([0], [1.0]), Curve([0, 1], [2.0, 2.0]), Curve([0, 1], [-1.0, 1e9]), Curve(range(5000), [1e-9] * 5000),
     Curve([0, 1, 2], [0.0, 0.0, 0.0]), Curve([5, 6], [1e-12, 1.0])],
)  # fmt: skip
def test_any_curve_can_be_drawn_inside_its_diagram(curve):
    for log in (None, True, False):
        drawing = draw_curves({"a": curve}, "any", log=log)
        Reader(drawing)
        assert "nan" not in drawing and "inf" not in drawing
        plot = drawing[: drawing.index("</svg>")]
        line = re.findall(r'class="line0" d="M([^"]*)"', plot)
        points = [tuple(map(float, pair.split())) for path in line for pair in path.split("L")]
        assert all(0 <= x <= 640 and 0 <= y <= 320 for x, y in points)
        assert len(points) <= 900


def test_a_long_curve_is_thinned_to_means_and_keeps_its_ends():
    steps = list(range(8_000))
    drawing = draw_curves({"a": Curve(steps, [float(s % 2) for s in steps])}, "noise")
    path = re.findall(r'class="line0" d="M([^"]*)"', drawing)[0].split("L")
    assert len(path) == 400
    heights = {pair.split()[1] for pair in path[1:-1]}
    assert len(heights) == 1  # every mean of twenty is the same


def test_tats_report_makes_a_page_of_a_run(tmp_path, capsys):
    (tmp_path / "metrics.csv").write_text(CSV)
    (tmp_path / "config.yaml").write_text(f"lr: 0.001\nname: {NASTY!r}\n")
    for number in range(report.RUN_VIDEOS + 1):
        write_video(tmp_path / "videos" / f"{number}.mp4", clip(), 8)
    report.main([str(tmp_path)])
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "report.html"
    page = Reader(path.read_text(encoding="utf-8"))
    words = "".join(page.words)
    assert "train/loss" in words and "val/loss" in words and "lr: 0.001" in words
    assert words.index("val/loss") < words.index("train/bits_step")  # diagrams with two curves come first
    assert len(page.all("video")) == report.RUN_VIDEOS
    assert "videos/8.mp4" in words and "videos/0.mp4" not in words
    assert len([attrs for attrs in page.all("svg") if attrs.get("class") == "plot"]) == 2  # loss, bits


def test_tats_report_says_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        report.main([str(tmp_path / "absent")])
    with pytest.raises(UserError, match=r"holds no metrics\.csv and no settings"):
        report.main(["--run", str(tmp_path)])
    with pytest.raises(UserError, match="--run is required"):
        report.main([])


def test_curves_that_are_zero_throughout_get_no_diagram():
    curves = {"train/loss": Curve([1, 2], [0.5, 0.0]), "train/g_loss": Curve([1, 2], [0.0, 0.0])}
    assert list(report.grouped(curves)) == ["loss"]
