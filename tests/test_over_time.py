"""`tats over_time` and its page: known answers from files to curves, for whole videos and for codes."""

import json

import numpy as np
import pytest
import torch

from tats import checkpoint, over_time, report
from tats.codes_file import Video
from tats.data.shapes import CLASSES, draw_truth, render
from tats.flags import UserError
from tats.long_videos import long_videos
from tats.media import write_video
from tats.metrics.coherence import class_coherence, classifier, image_classifier, inception_coherence
from tats.metrics.features import FeatureConfig, FeatureNet
from tats.metrics.frechet import Moments
from tats.metrics.holds_up import Side
from tats.metrics.windows import sets_over_time
from tats.output import Store
from tats.plot import Curve
from tats.report_time import diagrams, own_diagrams
from tats.video import to_frames
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

FRAMES = 48


def film(label, seed=0, frames=FRAMES):
    return render(draw_truth(seed, 3, frames=frames, label=label), 32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A sampler's folder with two videos, the second of which changes its object in frame 32; and two real videos."""
    made, real = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("real")
    videos = np.stack([film("red_circle"), np.concatenate([film("green_square")[:32], film("blue_circle")[32:]])])
    (made / "numpy_files").mkdir()
    np.save(made / "numpy_files" / "x_eval.npy", videos)
    entries = [{"index": 0, "class": "red_circle"}, {"index": 1, "class": "green_square"}]
    (made / "manifest.json").write_text(json.dumps({"videos": entries}))
    for label in ("red_circle", "green_square"):
        write_video(real / label / "0.mp4", film(label, 7), 16, crf=0, pix_fmt="yuv444p")
    return made, real


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return FeatureNet(FeatureConfig(CLASSES)).eval()


def test_from_folders_to_a_file_and_a_page(folders, capsys):
    made, real = folders
    over_time.main([str(made), str(real)])
    said = capsys.readouterr().out
    result = over_time.read(made / over_time.FILE)
    assert "generated: 2 videos; frames 32-48: right object 1 of 2, " in said and str(made / over_time.FILE) in said
    assert [window["right_object"] for window in result["generated"]["oracle"]] == [[2, 2], [2, 2], [1, 2]]
    assert [window["valid"] for window in result["real"]["oracle"]] == [[2, 2]] * 3
    assert result["generated"]["videos"][1]["oracle"]["right_object"] == [True, True, False]
    assert result["generated"]["colour"]["32"] < result["real"]["colour"]["32"] - 0.02
    report.main([str(made)])
    page = (made / "report.html").read_text(encoding="utf-8")
    assert page.count('class="watch"') == 2 and page.count("<video ") == 2 and page.count('class="now"') == 4
    assert "Share of videos: the right object in every frame" in page and "real videos" in page
    assert "red circle" in page and "Colour similarity over lags" in page


def test_a_side_says_what_each_measure_says_alone(network):
    videos = [film("red_circle", seed) for seed in range(3)]
    side = Side(16, network, every=5, oracle=True)
    for number, video in enumerate(videos):
        side.add(str(number), "red_circle", (video[first : first + 7] for first in range(0, FRAMES, 7)))
    assert side.classes == class_coherence(videos, classifier(network))
    assert side.stills == inception_coherence(videos, image_classifier(network), 5)
    assert side.result()["oracle"][2]["valid"] == [3, 3] and side.result()["motion"] == [1, 1, 1]

    def brightest(clips):
        return clips.float().mean((1, 2, 3))

    other = Side(16, classify=brightest, classify_still=brightest)
    other.add("a", None, np.concatenate([film("red_circle")[:32], film("blue_circle")[:16]]))
    assert other.result()["CCS"] == {"share": 2 / 3, "curve": [[1, 1], [1, 1], [0, 1]]}
    assert other.result()["ICS"]["share"] == pytest.approx(32 / 48)
    for rows, moments in zip(side.features, sets_over_time(videos, network.features), strict=True):
        again = Moments()
        again.add(torch.stack(rows))
        assert torch.allclose(again.mean, moments.mean, atol=1e-6)


def test_frechet_distances_over_time_rise_where_videos_change(folders, network):
    real = long_videos(folders[1]) * 4
    found = over_time.measure(long_videos(folders[0]) * 2, real, network=network)
    values = found["generated"]["frechet"]["values"]
    assert found["generated"]["frechet"]["name"] == "FCD-trained" and len(values) == 3
    assert values[2] > 1.5 * values[0] and values[2] > 1.5 * max(found["real"]["frechet"]["values"])
    assert any("too few for a covariance" in note for note in found["notes"])
    same = over_time.measure(real[:4], real, network=network)
    assert same["generated"]["frechet"]["values"] == pytest.approx(same["real"]["frechet"]["values"])
    few = over_time.measure(long_videos(folders[0]), real[:2], network=network)
    assert "frechet" not in few["generated"] and "at least 2 generated and 4 real" in few["notes"][0]


def test_codes_are_decoded_as_a_stream(tmp_path):
    torch.manual_seed(0)
    config = VQGANConfig(n_codes=8, embedding_dim=8, n_hiddens=4, downsample=(2, 2, 2), resolution=16,
                         sequence_length=4, norm_type="batch")  # fmt: skip
    vqgan = VQGAN(config).eval()
    codes = torch.randint(8, (2, 10, 8, 8))
    store = Store(tmp_path / "run", {}, {})
    videos = [Video(index, index, 0, "red_circle") for index in range(2)]
    store.add(videos, codes.numpy())
    store.finish(videos)
    checkpoint.save(vqgan, tmp_path / "vqgan")
    found = long_videos(tmp_path / "run", vqgan)
    assert [video.label for video in found] == ["red_circle"] * 2
    with torch.inference_mode():
        whole = to_frames(vqgan.decode(codes))
    for video, frames in zip(found, whole):
        streamed = torch.cat([to_frames(piece)[0] for piece in video.pieces()])
        assert (streamed.int() - frames.int()).abs().max() <= 1
    over_time.main([str(tmp_path / "run"), "--vqgan_ckpt", str(tmp_path / "vqgan"), "--length", "4", "--no_oracle"])
    result = over_time.read(tmp_path / "run" / over_time.FILE)
    assert result["generated"]["videos"][0]["frames"] == 20 and "oracle" not in result["generated"]


def test_classes_come_from_the_manifest_the_folder_or_the_name(tmp_path):
    for name in ("a/x.mp4", "generation_red_circle_3.mp4", "plain.mp4", "b/c.gif", ".hidden.mp4", "grid_00000.mp4"):
        write_video(tmp_path / name, film("red_circle", frames=4), 8)
    write_video(tmp_path / "pictures" / "7", film("red_circle", frames=4), 8)
    found = {video.name: video.label for video in long_videos(tmp_path)}
    assert found == {"a/x.mp4": "a", "b/c.gif": "b", "generation_red_circle_3.mp4": "red_circle",
                     "pictures/7": "pictures", "plain.mp4": None}  # fmt: skip
    assert [video.name for video in long_videos(tmp_path / "plain.mp4")] == ["plain.mp4"]
    assert len(long_videos(tmp_path, limit=2)) == 2
    pieces = list(long_videos(tmp_path / "pictures")[0].pieces())
    assert np.array_equal(np.concatenate(pieces), film("red_circle", frames=4))


def test_diagrams_hold_enough_windows_in_every_point():
    window = {name: [1, 2] for name in ("right_object", "speed_of_start", "legal_speed", "valid")}
    own = {"motion": [1.0] * 20, "right_object": [True] * 20, "speed": [None] + [0.02] * 19}
    side = {"videos": [], "oracle": [window] * 20, "motion": [0.5] * 20, "colour": {"8": 0.5, "16": 0.25}}
    result = {"length": 16, "notes": [], "generated": side}
    drawn = {title: curves for title, curves, _ in diagrams(result)}
    assert drawn["Share of videos: the right object in every frame"] == {"generated": Curve([0, 128, 256], [0.5] * 3)}
    assert drawn["Colour similarity over lags"] == {"generated": Curve([8, 16], [0.5, 0.25])}
    speeds = {title: curves for title, curves, _ in own_diagrams({"oracle": own, "frames": 320}, result)}
    assert speeds["Speed, picture sides per frame"]["this video"].steps[0] == 16  # unknown at first
    assert speeds["Speed, picture sides per frame"]["fast, as in the data"] == Curve([0, 304], [0.04, 0.04])


def test_mistakes_get_one_line(folders, tmp_path):
    made = str(folders[0])
    (tmp_path / "manifest.json").write_text("{")
    np.save(tmp_path / "short.npy", np.zeros((1, 8, 32, 32, 3), np.uint8))
    for words, said in (
        ([], "--generated is required"),
        (["a", "b", "c"], "got 3: a, b, c"),
        ([str(tmp_path / "absent")], "no such file or folder"),
        ([str(tmp_path)], "manifest.json is damaged"),
        ([str(tmp_path / "short.npy")], "has 8 frames, a window 16"),
        ([str(tmp_path / "short.npy"), "--oracle"], "needs videos by class"),
        ([made, "--length", "3"], "at least 4 frames"),
        ([made, "--every", "0"], "--every must be at least 1"),
        ([made, "--features_ckpt", "a", "--i3d_ckpt", "b"], "two networks"),
        ([made, "--features_ckpt", str(tmp_path / "no.pt")], "no feature network"),
    ):
        with pytest.raises(UserError) as error:
            over_time.main(words)
        assert said in str(error.value), words
    (tmp_path / over_time.FILE).write_text("[]")
    with pytest.raises(UserError, match="is damaged"):
        over_time.read(tmp_path / over_time.FILE)
