"""Recognition must agree with the scene's truth exactly, after JPEG as well; otherwise the demo's check means nothing."""

import cv2
import pytest

import scene
import vision


@pytest.fixture(scope="module", params=[1, 7, 23])
def played(request):
    return scene.Scene(request.param)


@pytest.mark.parametrize("number", [0, 13, 30, 60])
def test_labels_equal_the_truth(played, number):
    _, jpeg = cv2.imencode(".jpg", played.frame(number), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert vision.labels(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) == played.truth(number)


def test_a_seed_gives_one_scene():
    one, other = scene.Scene(5), scene.Scene(5)
    assert (one.frame(9) == other.frame(9)).all()
    assert one.truth(9) == other.truth(9)


def test_the_truth_changes_over_time():
    played = scene.Scene(7)
    truths = [played.truth(number) for number in range(scene.FRAMES)]
    assert len({tuple(truth) for truth in truths}) > 10
    assert any(truths)


def test_a_frame_without_objects_has_no_labels():
    played = scene.Scene(7)
    played.movers = []
    assert vision.labels(played.frame(0)) == []


def test_frames_are_as_large_as_footage():
    _, jpeg = cv2.imencode(".jpg", scene.Scene(7).frame(0), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert 200_000 < len(jpeg) < 1_200_000
