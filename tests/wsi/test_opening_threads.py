"""Slides opened by several threads of one process, and by a child that was forked meanwhile."""

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from shared.wsi import Slide
from shared.wsi.readers import order
from shared.wsi.readers.openslide import OpenSlideReader

FIRST_SLIDES = """
import sys, threading
from shared.wsi import Slide

paths = sys.argv[1:]
start, sizes = threading.Barrier(len(paths)), []

def read(path):
    start.wait()
    sizes.append(Slide(path).read_region((0, 0), 64).shape)

threads = [threading.Thread(target=read, args=(path,)) for path in paths]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sizes == [(64, 64, 3)] * len(paths), sizes
"""


def test_a_process_opens_its_first_slides_in_several_threads(run_python, pyramid, flat):
    done = run_python("-c", FIRST_SLIDES, *[pyramid, flat] * 4)
    assert done.returncode == 0, done.stderr


def test_one_thread_opens_at_a_time(pyramid, monkeypatch):
    at_work, most = set(), []
    # The first opening in a process compares the levels, in a reader of its own.
    Slide(pyramid).close()

    class Noted(OpenSlideReader):
        def __init__(self, file):
            me = threading.get_ident()
            at_work.add(me)
            most.append(len(at_work))
            time.sleep(0.02)
            super().__init__(file)
            at_work.remove(me)

    monkeypatch.setattr(order, "READERS", (Noted,))
    slides = [Slide(pyramid) for _ in range(4)]
    for slide in slides:
        slide.close()
    with ThreadPoolExecutor(8) as pool:
        opened = [pool.submit(Slide, pyramid) for _ in range(4)]
        opened_again = [pool.submit(slide.read_region, (0, 0), 8) for slide in slides]
        assert {future.result().size_px for future in opened} == {(517, 301)}
        assert {future.result().shape for future in opened_again} == {(8, 8, 3)}
    assert most == [1] * 12


def open_in_child(path, queue):
    queue.put(Slide(path).read_region((0, 0), 8).shape)


def test_a_child_that_is_forked_while_a_slide_is_opened_can_open_its_own(pyramid, flat, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()

    class Held(OpenSlideReader):
        def __init__(self, file):
            if file.path == pyramid:
                begun.set()
                assert may_end.wait(600)
            super().__init__(file)

    monkeypatch.setattr(order, "READERS", (Held,))
    opener = threading.Thread(target=Slide, args=(pyramid, "openslide"))
    opener.start()
    try:
        assert begun.wait(600)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=open_in_child, args=(flat, queue), daemon=True)
        child.start()
        assert queue.get(timeout=600) == (8, 8, 3)
        child.join(600)
    finally:
        may_end.set()
        opener.join(600)
