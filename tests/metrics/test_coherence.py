"""Coherence and colours over time, where the answer is known."""

import numpy as np
import pytest
import torch

from tats.data.shapes import CLASSES, draw_truth, render
from tats.flags import UserError
from tats.metrics.coherence import (
    Coherence,
    ColourSimilarity,
    class_coherence,
    classifier,
    colour_histograms,
    colour_similarity,
    image_classifier,
    inception_coherence,
    logits_of,
)
from tats.metrics.counts import Count
from tats.metrics.features import FeatureConfig, FeatureNet
from tats.metrics.networks import C3DFeatures, I3DScript, InceptionFeatures


def film(label, frames=64, size=32):
    return render(draw_truth(0, 3, frames=frames, label=label), size)


def by_colour(clips):
    """A classifier that knows colours: 0 red, 1 green, 2 blue, as logits."""
    return clips.float().mean((1, 2, 3))


def swapped(frames=64):
    """Red until the middle, then green."""
    half = frames // 2
    return np.concatenate([film("red_circle", half), film("green_circle", half)])


def test_a_perfect_film_stays_coherent():
    films = [film("red_circle"), film("green_square"), film("blue_triangle")]
    found = class_coherence(films, by_colour)
    assert found.count == Count(12, 12) and found.count.share == 1
    assert found.curve == [Count(3, 3)] * 4


def test_an_object_swapped_midway_drops_the_coherence_at_that_window():
    found = class_coherence([film("red_circle"), swapped()], by_colour)
    assert [each.share for each in found.curve] == [1, 1, 0.5, 0.5]
    assert found.count == Count(6, 8)
    stills = inception_coherence([swapped()], by_colour)
    assert [each.hits for each in stills.curve] == [1] * 32 + [0] * 32
    assert inception_coherence([swapped()], by_colour, every=16).curve == [Count(1, 1)] * 2 + [Count(0, 1)] * 2


def test_coherence_of_a_stream_is_that_of_the_whole():
    video = swapped()
    pieces = (video[first : first + 7] for first in range(0, 64, 7))
    assert class_coherence([pieces], by_colour) == class_coherence([video], by_colour)


def test_it_asks_what_the_first_window_showed_not_what_is_right():
    found = Coherence()
    found.add([7, 7, 3, 7])
    found.add([3, 7])
    assert found.curve == [Count(2, 2), Count(1, 2), Count(0, 1), Count(1, 1)]
    assert found.count == Count(4, 6)


def test_the_feature_network_serves_as_both_classifiers():
    torch.manual_seed(0)
    network = FeatureNet(FeatureConfig(CLASSES)).eval()
    video = torch.from_numpy(film("red_circle", 32))
    clips = torch.stack([video[:16], video[16:]])
    with torch.inference_mode():
        assert torch.equal(classifier(network)(clips), network(clips)[0])
        pictures = image_classifier(network)(clips)
        still = clips[:, :1].repeat(1, 4, 1, 1, 1)
        assert torch.allclose(pictures, network(still)[0])
    for network in (FeatureNet(FeatureConfig(())), InceptionFeatures(torch.nn.Identity())):
        with pytest.raises(UserError, match="knows no classes of clips"):
            classifier(network)
    with pytest.raises(UserError, match="knows no classes of single pictures"):
        image_classifier(C3DFeatures(torch.nn.Identity()))


def test_published_networks_serve_as_classifiers():
    clips = torch.zeros(2, 16, 8, 8, 3, dtype=torch.uint8)
    told = []

    class Answers(C3DFeatures):
        def probabilities(self, frames):
            told.append(frames.shape)
            return torch.eye(101)[[3, 5]]

    assert classifier(Answers(torch.nn.Identity()))(clips).argmax(1).tolist() == [3, 5]
    assert told == [clips.shape]
    assert logits_of(I3DScript(torch.nn.Identity()))(torch.ones(1, 400)).shape == (1, 400)


def test_colours_that_stay_are_similar_at_every_lag():
    still = np.broadcast_to(film("red_circle", 1), (40, 32, 32, 3))
    assert colour_similarity([still], lags=[1, 8, 32]) == {1: 1.0, 8: 1.0, 32: 1.0}
    moving = np.stack([np.roll(still[0], shift, 1) for shift in range(20)])  # it moves, the colours stay
    assert colour_similarity([moving], lags=[0, 1, 19, 20]) == {0: 1.0, 1: 1.0, 19: 1.0}


def test_colour_similarity_is_the_intersection_of_histograms():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    half = np.concatenate([black[:2], white[:2]])
    assert colour_similarity([[black, white, half, black]], lags=[1, 2, 3]) == {1: 1 / 3, 2: 0.25, 3: 1.0}
    assert colour_similarity([[black, white], [black, black, black]], lags=[1, 2]) == {1: 2 / 3, 2: 1.0}


def test_colour_similarity_is_the_same_for_a_stream_and_falls_when_the_object_changes():
    video = swapped(128)
    pieces = (video[first : first + 9] for first in range(0, 128, 9))
    found = colour_similarity([pieces], lags=[1, 16, 100])
    assert found == colour_similarity([video], lags=[1, 16, 100])
    assert found[1] > found[16] > found[100]
    assert colour_similarity([film("red_circle", 128)], lags=[100])[100] > found[100] + 0.05


def test_histograms_are_shares_of_joint_colours():
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    found = colour_histograms(frames, 4)
    assert found.shape == (3, 64) and np.allclose(found.sum(1), 1)
    corners = np.array([[[[0, 63, 64], [255, 128, 191]]]], np.uint8)  # bins (0, 0, 1) and (3, 2, 2)
    assert np.flatnonzero(colour_histograms(corners, 4)[0]).tolist() == [1, 3 * 16 + 2 * 4 + 2]
    with pytest.raises(ValueError, match="lags must be"):
        ColourSimilarity([])
