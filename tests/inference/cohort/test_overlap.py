"""What of neighbouring images is done at the same time, by one process and by several."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from shared.inference import InferenceFailures, SlideMapper, find_images, run_cohort
from shared.inference.cohort import worker
from shared.inference.cohort.row_store import RowStore
from shared.inference.outputs.slide_results import RESULT_SUFFIXES
from tests.inference.cohort_processes import SETTINGS, start, table_of
from tests.inference.flat_options import grouped


class Events(SlideMapper):
    """Notes what is begun and done, in order; `results_of` may stand in for the writing of an image's files."""

    def __init__(self, network):
        super().__init__(network, **grouped(**SETTINGS))
        self.events, self.results_of = [], lambda name, results: results()

    def compute_image(self, image, output_dir, title=""):
        self.events.append(("compute", image.name))
        computed = super().compute_image(image, output_dir, title)

        def results():
            numbers = self.results_of(image.name, computed.results)
            self.events.append(("written", image.name))
            return numbers

        self.events.append(("computed", image.name))
        return replace(computed, results=results)


def test_results_are_written_while_the_next_image_is_computed(tmp_path, pictures, redness):
    mapper, found = Events(redness), find_images(pictures)

    def results_of(name, results):
        following = f"{int(name) + 1:02}"
        # Without the next image at work these files would never be written.
        while following < "12" and ("compute", following) not in mapper.events:
            assert threading.current_thread() is not threading.main_thread()
            time.sleep(0.01)
        return results()

    mapper.results_of = results_of
    rows = run_cohort(mapper, found, tmp_path / "out")
    assert [row["slide"] for row in rows] == [image.name for image in found]
    # Never is more than one finished map behind that of which the files are written.
    waiting = 0
    for event, _ in mapper.events:
        waiting += (event == "computed") - (event == "written")
        assert waiting <= 2
    assert not list((tmp_path / "out").glob("*.part"))


def test_seconds_are_of_computing_and_writing_and_not_of_waiting(tmp_path, pictures, redness, monkeypatch):
    """By a clock that goes on only where it is told to: 3 s of computing, 40 s of waiting, 2 s of writing."""
    clock, is_waited_for = [0.0], threading.Event()
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    class Clocked(Events):
        def compute_image(self, image, output_dir, title=""):
            clock[0] += 3
            return super().compute_image(image, output_dir, title)

    class Watched(worker.CohortWorker):
        def _wait(self):
            is_waited_for.set()
            super()._wait()

    def results_of(name, results):
        if name == "00":
            assert second_is_begun.wait(600)
            assert is_waited_for.wait(600)
        clock[0] += 40 if name == "00" else 2
        return results()

    mapper, second_is_begun = Clocked(redness), threading.Event()
    mapper.results_of = results_of
    mine, (first, second, *_) = Watched(mapper, tmp_path / "out"), find_images(pictures)
    mine.begin(first, None)
    is_waited_for.clear()
    second_is_begun.set()
    assert mine.begin(second, None).result().row["seconds"] == 5
    mine.close()


def test_what_goes_wrong_in_writing_is_of_its_image(tmp_path, pictures, redness):
    mapper = Events(redness)

    def results_of(name, results):
        numbers = results()
        if name == "03":
            raise ValueError("a polygon without end")
        return numbers

    mapper.results_of = results_of
    with pytest.raises(InferenceFailures, match=r"1 of 12 images failed:\n.*03\.png: ValueError: a polygon without end"):
        run_cohort(mapper, find_images(pictures), tmp_path / "out")
    table = table_of(tmp_path / "out")
    assert (table.pop("03")["status"], {row["status"] for row in table.values()}) == ("failed", {"ok"})
    files = sorted(path.name for path in (tmp_path / "out").glob("[01]*.*"))
    assert files == sorted(f"{name}{suffix}" for name in table for suffix in RESULT_SUFFIXES)


def test_an_error_of_the_next_image_does_not_lose_the_one_that_is_written(tmp_path, pictures, redness):
    class Interrupted(Events):
        def compute_image(self, image, output_dir, title=""):
            if image.name == "02":
                raise KeyboardInterrupt
            return super().compute_image(image, output_dir, title)

    with pytest.raises(KeyboardInterrupt):
        run_cohort(Interrupted(redness), find_images(pictures), tmp_path / "out")
    assert {name: row["status"] for name, row in table_of(tmp_path / "out").items()} == {"00": "ok", "01": "ok"}


def test_what_another_process_has_reserved_comes_last_and_is_not_waited_for(tmp_path, pictures, redness):
    """It computes something long, and would open the image ahead for nothing."""
    mapper = Events(redness)
    reservation = RowStore(tmp_path / "out").reserve("05")
    rows = run_cohort(mapper, find_images(pictures), tmp_path / "out")
    reservation.release()
    assert len(rows) == 12
    assert [name for event, name in mapper.events if event == "compute"][-1] == "05"


@pytest.mark.slow
def test_several_processes_look_ahead_at_images_of_their_own(tmp_path, pictures):
    """Each image is opened once, and but for the first of each process and the last of all, ahead."""
    process = start(f"""
        import threading
        pictures, out, log = Path({str(pictures)!r}), Path({str(tmp_path / "out")!r}), Path({str(tmp_path / "log")!r})

        class Watched(SlideMapper):
            def _open_slide(self, image):
                with log.open("a") as file:
                    file.write(f"{{image.name}} {{threading.current_thread().name.startswith('look-ahead')}}\\n")
                return super()._open_slide(image)

            def compute_image(self, *arguments):
                time.sleep(0.3)
                return super().compute_image(*arguments)

        children = []
        for _ in range(3):
            children.append(os.fork())
            if children[-1] == 0:
                Watched(Redness(), **grouped(num_workers=1, **{SETTINGS!r})).run(pictures, out)
                os._exit(0)
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    """)
    process.communicate()
    assert process.returncode == 0
    assert {row["status"] for row in table_of(tmp_path / "out").values()} == {"ok"}
    openings = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert {name for name, _ in openings} == {f"{index:02}" for index in range(12)}
    ahead = [name for name, is_ahead in openings if is_ahead == "True"]
    # Three begin without, and in the end up to two take what others had reserved.
    assert len(ahead) >= 7
    assert len(openings) <= 14
