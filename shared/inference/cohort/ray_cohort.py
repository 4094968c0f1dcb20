"""A cohort on the machines of a Ray cluster: one task per image, whose results the workers write to a shared file system."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.contrib.logging import logging_redirect_tqdm

from ..device_errors import DeviceFailure, device_error
from ..inputs import ImageInput
from ..row import Row
from .cohort import POLL_S, Tally, in_order, known_rows
from .finished import FAILED, FINISHED, UNFINISHED
from .row_store import RowStore
from .worker import MAX_ATTEMPTS, MAX_DEATHS, CohortWorker, Mapper, Outcome

logger = logging.getLogger(__name__)

# Of a task whose process or machine dies, by Ray. After a few of them the image is given up, see `CohortWorker.attempt`.
MAX_RETRIES = 5
GATHER_S = 1.0
# What a process whose device failed has for its answer to reach the driver, before it ends.
ANSWER_S = 0.5
# What `shared` is imported from, the same place on every machine.
ROOT = Path(__file__).resolve().parents[2]


# What a process that has begun an image may choose from, to open it meanwhile.
NUM_FOLLOWING = 16


class ImageTask(NamedTuple):
    """An image as a task gets it, with its row when the run began."""

    image: ImageInput
    known: Row | None
    title: str


class RayCohort:
    """Maps images on a Ray cluster.

    Every process of the cluster builds the mapper once and keeps it. Claims and rows are those of `run_cohort`, so that a
    machine that was taken for dead and is not cannot do an image twice, and other processes may work in the same folder. The
    driver only gathers rows, and may be stopped and started again. A process opens the next image while it computes one, and
    its next task does that image, whatever it was meant for; what it was meant for is begun again.

    A process whose device computes no more ends, and the image that it was at goes to another machine if there is one where no
    device has failed. An image at which `MAX_DEATHS` devices have failed is left unfinished, and reported at the end.

    Args:
        build: makes the mapper, in the workers. It is pickled; what it reads, this code included, must lie at the same place on
            every machine.
        address: of the cluster, as for `ray.init`; None: that of the environment variable ``RAY_ADDRESS``, or else a cluster of
            this machine alone, for this run. Not used where Ray is connected already.
        num_cpus: cores a worker.
        num_gpus: GPUs a worker, also a part of one. Without any, workers see none.

    Raises:
        ImportError: where Ray is not installed.
    """

    def __init__(self, build: Callable[[], Mapper], address: str | None = None, num_cpus: float = 2, num_gpus: float = 0) -> None:
        self._ray = import_ray()
        if num_cpus <= 0 or num_gpus < 0:
            raise ValueError(f"need num_cpus > 0 and num_gpus >= 0, got {num_cpus=}, {num_gpus=}")
        self._pickled = self._ray.cloudpickle.dumps(build)
        self.address, self.num_cpus, self.num_gpus = address, num_cpus, num_gpus

    def run(self, images: Sequence[ImageInput], output_dir: str | Path) -> list[Row]:
        """Map every image that is not finished, as `run_cohort` does.

        Args:
            images: with distinct names, see `find_images`. Paths must be the same on every machine.
            output_dir: on a file system that all machines share.

        Returns:
            the rows of the images that were computed now.

        Raises:
            InferenceFailures: after everything else is done, naming each image that failed.
            DeviceFailure: if devices fail on every machine and no image gets done.
            ValueError: if no machine of the cluster has so many cores or GPUs.
        """
        output_dir = Path(output_dir).resolve()
        images = [ImageInput(image.path.absolute(), image.name, image.mpp) for image in images]
        is_own = not self._ray.is_initialized()
        if is_own:
            self._ray.init(address=self.address)
        try:
            self._check_resources()
            with logging_redirect_tqdm():
                return self._gather(images, output_dir)
        finally:
            if is_own:
                self._ray.shutdown()

    def _gather(self, images: Sequence[ImageInput], output_dir: Path) -> list[Row]:
        store = RowStore(output_dir)
        store.rebuild_table()
        known = known_rows(store, images)
        tally = Tally(store, images, len(images))
        tasks = {
            image.name: ImageTask(image, known.get(image.name), f"{index}/{len(images)} {image.name}")
            for index, image in enumerate(images, start=1)
        }
        counted: set[str] = set()
        devices = _Devices(self._suitable_nodes(), self._num_slots())
        running: dict[Any, ImageInput] = {}
        # Images to begin, each with the time from which on, and whether to leave it to a process that is to do it next.
        waiting = [(0.0, image, True) for image in in_order(images, known)]
        try:
            while running or waiting:
                now = time.monotonic()
                due = [(image, is_patient) for start, image, is_patient in waiting if start <= now]
                waiting = [one for one in waiting if one[0] > now]
                for place, (image, is_patient) in enumerate(due, start=1):
                    following = [tasks[other.name] for other, _ in due[place : place + NUM_FOLLOWING]]
                    reference = self._submit([tasks[image.name], *following], is_patient, output_dir, devices.node_for(image))
                    running[reference] = image
                done, _ = self._ray.wait(list(running), num_returns=1, timeout=GATHER_S) if running else ([], None)
                if not running:
                    time.sleep(POLL_S)
                for reference in done:
                    meant = running.pop(reference)
                    image, outcome = self._outcome(reference, tasks, meant, store, devices)
                    if image.name not in counted:
                        tally.add(image, outcome)
                    if outcome.is_final:
                        counted.add(image.name)
                    if image != meant:
                        waiting.append((now, meant, True))
                    elif not outcome.is_final and not devices.is_given_up(image):
                        # At once, after the others, after a failure; later while another process is at it.
                        waiting.append((now + (POLL_S if outcome.row is None else 0.0), image, False))
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)
            tally.close()
        return tally.result()

    def _submit(self, tasks: Sequence[ImageTask], is_patient: bool, output_dir: Path, node: str | None) -> Any:
        """Begin the first image, on this node if one is named; the others may come after it."""
        strategies = self._ray.util.scheduling_strategies
        strategy = "SPREAD" if node is None else strategies.NodeAffinitySchedulingStrategy(node, soft=True)
        task = self._ray.remote(attempt_in_worker).options(
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            max_retries=MAX_RETRIES,
            scheduling_strategy=strategy,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}},
            name=tasks[0].title,
        )
        return task.remote(self._pickled, str(Path.cwd()), str(output_dir), list(tasks), is_patient)

    def _outcome(
        self, reference: Any, tasks: Mapping[str, ImageTask], image: ImageInput, store: RowStore, devices: _Devices
    ) -> tuple[ImageInput, Outcome]:
        """The result of a task that was meant for an image: the image that it did, and its outcome; if Ray gave it up, a failure.

        What the mapper's making raises stops the run: no image is to blame.
        """
        try:
            name, answer = self._ray.get(reference)
            if name not in tasks:  # of an earlier run of other images, done now
                return image, Outcome(None, False)
            image = tasks[name].image
            if isinstance(answer, LostDevice):
                return image, devices.lost(image, answer, store)
            devices.num_finished += answer.row is not None and answer.row["status"] in FINISHED
            return image, answer
        except self._ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except self._ray.exceptions.RayError as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            logger.error("%s failed: %s", image.name, reason)
            row: Row = {
                "slide": image.name,
                "status": FAILED,
                "reason": reason,
                "attempts": MAX_ATTEMPTS,
                "path": str(image.path),
            }
            with store.claim(image.name) as is_mine:
                if is_mine:
                    store.write(row)
            # Whoever holds the claim may be about to finish it.
            return image, Outcome(row, True) if is_mine else Outcome(None, False)

    @property
    def _wanted(self) -> dict[str, float]:
        return {"CPU": self.num_cpus, "GPU": self.num_gpus}

    def _suitable_nodes(self) -> list[str]:
        """Ids of the machines that have so many cores and GPUs."""
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        has_all = (all(node["Resources"].get(name, 0) >= number for name, number in self._wanted.items()) for node in alive)
        return [node["NodeID"] for node, is_suitable in zip(alive, has_all, strict=True) if is_suitable]

    def _num_slots(self) -> int:
        """How many tasks the cluster can run at once."""
        found = {node["NodeID"]: node["Resources"] for node in self._ray.nodes()}
        wanted = {name: number for name, number in self._wanted.items() if number}
        return sum(int(min(found[node][name] / number for name, number in wanted.items())) for node in self._suitable_nodes())

    def _check_resources(self) -> None:
        wanted = self._wanted
        if not self._suitable_nodes():
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            found = "; ".join(", ".join(f"{node.get(name, 0):g} {name}" for name in wanted) for node in nodes)
            raise ValueError(f"no machine of the Ray cluster has {self.num_cpus:g} CPU and {self.num_gpus:g} GPU; found: {found}")


class LostDevice(NamedTuple):
    """The result of a task whose process lost its device: on which node, and how."""

    node: str
    reason: str


class _Devices:
    """Where devices have failed in this run, and at which images.

    Args:
        nodes: ids of those that tasks can run on.
        num_slots: tasks that run at once.
    """

    def __init__(self, nodes: Sequence[str], num_slots: int) -> None:
        self._nodes, self._most_failures = list(nodes), MAX_DEATHS * max(1, num_slots)
        self._bad: set[str] = set()
        self._failures: Counter[str] = Counter()
        self.num_finished = 0

    def lost(self, image: ImageInput, answer: LostDevice, store: RowStore) -> Outcome:
        """Note it; the image's row where it is given up.

        Raises:
            DeviceFailure: if there is no other machine, and so many devices have failed before any image was finished that
                there can hardly be one that works.
        """
        logger.error("%s: %s", image.name, answer.reason)
        self._bad.add(answer.node)
        self._failures[image.name] += 1
        is_hopeless = not self.num_finished and self._failures.total() >= self._most_failures
        if is_hopeless and not set(self._nodes) - self._bad:
            raise DeviceFailure(f"no device of any machine works; the last error was: {answer.reason}")
        if not self.is_given_up(image):
            return Outcome(None, False)
        row = store.read(image.name) or {}
        return Outcome({"slide": image.name, "status": UNFINISHED, "attempts": 0, **row, "reason": answer.reason}, False)

    def is_given_up(self, image: ImageInput) -> bool:
        """Whether enough devices failed at it."""
        return self._failures[image.name] >= MAX_DEATHS

    def node_for(self, image: ImageInput) -> str | None:
        """A node for an image at which a device failed, in turn of those where none has; None: any."""
        good = [node for node in self._nodes if node not in self._bad]
        if not self._failures[image.name] or not good:
            return None
        return good[self._failures.total() % len(good)]


def import_ray() -> Any:
    """Ray; an ImportError with the remedy if it is missing."""
    try:
        import ray
    except ImportError as error:
        raise ImportError("running on several machines needs Ray: pip install -r requirements-ray.txt, on all of them") from error
    return ray


def attempt_in_worker(
    pickled: bytes, folder: str, output_dir: str, tasks: Sequence[ImageTask], is_patient: bool
) -> tuple[str, Outcome | LostDevice]:
    """Run one task: one attempt at one image, the first or the one that was opened ahead, which it names."""
    while _ENDING.is_set():
        # Ray gave this process a task before it had ended: the task is begun again in another one.
        time.sleep(ANSWER_S)
    done = tasks[0].image.name
    try:
        worker = _worker(pickled, folder, output_dir)
        _OFFERED.update((task.image.name, task) for task in tasks)
        done = worker.reserved or done
        task = _OFFERED[done]
        outcome = worker.attempt(task.image, task.known, task.title, [other.image for other in tasks[1:]], is_patient)
    except Exception as error:
        if device_error(error) is None:
            raise
        _ENDING.set()
        threading.Timer(ANSWER_S, os._exit, (1,)).start()
        return done, LostDevice(import_ray().get_runtime_context().get_node_id(), " ".join(str(error).split()))
    return done, outcome


_ENDING = threading.Event()
# What this process may have reserved.
_OFFERED: dict[str, ImageTask] = {}


@functools.lru_cache(maxsize=1)
def _worker(pickled: bytes, folder: str, output_dir: str) -> CohortWorker:
    """The worker of this process, which runs many tasks; relative paths are those of the driver's working directory `folder`."""
    os.chdir(folder)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    return CohortWorker(import_ray().cloudpickle.loads(pickled)(), output_dir)
