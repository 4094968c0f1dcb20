"""Slides across processes, and the pool of open ones."""

import multiprocessing
import pickle

import numpy as np
import pytest

from shared.wsi import Slide, SlidePool, open_slide

XYS = [(-10, 5), (100, 60), (300, 200)]


def read_in_child(slide, queue):
    queue.put(slide.read_regions(XYS, 64, num_workers=2))


@pytest.mark.parametrize("backend", ["cucim", "openslide"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_slide_opened_in_the_parent_is_read_in_children(backend, method, pyramid):
    slide = Slide(pyramid, backend)
    expected = slide.read_regions(XYS, 64, num_workers=2)  # the parent's handle is in use before the fork
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=read_in_child, args=(slide, queue)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in children:
        np.testing.assert_array_equal(queue.get(timeout=600), expected)
    for child in children:
        child.join(timeout=600)
        assert child.exitcode == 0
    np.testing.assert_array_equal(slide.read_regions(XYS, 64), expected)


def test_pickled_slide_keeps_what_was_known(pyramid):
    slide = Slide(pyramid, "openslide", mpp=0.3)
    copy = pickle.loads(pickle.dumps(slide))
    assert (copy.backend, copy.mpp, copy.size_px) == ("openslide", 0.3, slide.size_px)
    np.testing.assert_array_equal(copy.read_region((5, 6), 20), slide.read_region((5, 6), 20))


def test_closed_slide_opens_again(pyramid):
    with Slide(pyramid) as slide:
        before = slide.read_region((5, 6), 20)
    slide.close()
    np.testing.assert_array_equal(slide.read_region((5, 6), 20), before)


def test_pool_keeps_the_last_used(pyramid, flat):
    pool = SlidePool(max_open=2)
    first = pool.get(pyramid)
    second = pool.get(flat)
    assert pool.get(str(pyramid)) is first
    pool.get(pyramid, mpp=0.3)  # another spacing is another slide; `flat` was used longest ago
    assert len(pool) == 2
    assert pool.get(pyramid) is first
    assert pool.get(flat) is not second
    assert second.read_region((0, 0), 8).shape == (8, 8, 3)
    pool.close()
    assert len(pool) == 0


def test_pool_needs_room():
    with pytest.raises(ValueError, match="max_open must be at least 1, got 0"):
        SlidePool(max_open=0)


def test_open_slide_returns_the_same_slide(pyramid):
    assert open_slide(pyramid) is open_slide(pyramid)
    assert open_slide(pyramid, mpp=0.4).mpp == 0.4
