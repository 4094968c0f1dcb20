"""Trains, maps and scores the methods of a comparison; what is finished is not repeated."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from scripts.declarations.supervision import IMAGES, SLIDES
from shared.data import TissueCache
from shared.handlers import Tracking
from shared.inference.cohort.finished import FINISHED, MAP_SUFFIX
from shared.inference.cohort.row_store import TABLE_NAME
from shared.sweeps.child_process import run_child
from shared.sweeps.sweep import LOG, METRICS, Sweep
from shared.writers import atomic_path, read_rows
from shared.wsi.notices import LARGEST_MPP_RATIO

from .data import ComparisonData, files_key
from .planning.method_records import NotComparable
from .planning.methods import Method
from .planning.plan import Plan, plan
from .rows.kept_rows import keep_row, kept_row, kept_rows
from .rows.method_row import DONE, FAILED, SKIPPED, MethodRow, fill_scores
from .scores.ceilings import CEILINGS, INSTANCES_PER_SIDE
from .scores.intervals import NUM_DRAWS, intervals
from .scores.scoring import MapScorer, Scores
from .trainings.attempts import INFERENCE_USAGE, USAGE, attempts_in, last_line, mean_seconds, peak, seconds, seconds_of_colours
from .trainings.baselines import BASELINES, TRAINED
from .trainings.measured_process import command_line
from .trainings.origin import Origin, distinct

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
# Settings that say where something lies, and not what it is.
_FOLDERS = ("manifest", "tissue_dir", "features_dir")
INFERENCE_LOG = "inference_log.txt"
# Beside a network: what its maps were made of.
MAPPED = "mapped.json"


@dataclass(frozen=True)
class Tracker:
    """Where all runs are tracked: one database, one experiment; and which of their scores, None for all."""

    uri: str
    experiment: str
    scores: Collection[str] | None = None


class MeasuredSweep(Sweep):
    """A `Sweep` whose processes note what they cost, and the call that started them."""

    origin: Mapping[str, str] | None = None

    def command(self, values: Mapping[str, Any], parent_run_id: str | None = None) -> list[str]:
        """The command of the sweep, measured into the run's folder."""
        return command_line(self.folder(values) / USAGE, super().command(values, parent_run_id), self.origin)


class NothingMade(Exception):
    """A method was neither trained nor mapped, so that what an earlier call has made of it is as it was.

    Args:
        status: `SKIPPED` or `FAILED`.
        reason: why.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Comparison:
    """Every method on one data set.

    Into `out` go ``data/`` (manifests, tissue), ``runs/<method>/seed=<n>/`` (what a training writes, ``usage.json``,
    ``log.txt``), ``maps/<method>/seed=<n>/``, ``scores/`` and ``mlruns.db``. Each training, and each inference, is a process of
    its own that ends with this one; given again, the same command resumes where it stopped. A method that fails keeps no other
    from its turn.

    Args:
        data: what is compared on.
        out: folder to write to.
        methods: to compare.
        seeds: of the trainings of each.
        mpp: micrometres per pixel at which maps are scored.
        given: method, or ``all``, -> keys and values over those that are derived from the data.
        tracker: MLflow.
        num_draws: of the intervals.
        by_labels_alone: whether all methods choose their epochs and thresholds by labels of the validation split alone.
        origin: this call; None is not recorded.
    """

    def __init__(
        self,
        data: ComparisonData,
        out: Path,
        methods: Sequence[Method],
        seeds: Sequence[int],
        mpp: float,
        given: Mapping[str, Mapping[str, Any]],
        tracker: Tracker,
        num_draws: int = NUM_DRAWS,
        by_labels_alone: bool = False,
        origin: Origin | None = None,
    ) -> None:
        self.data, self.out, self.methods, self.seeds, self.mpp = data, out, methods, list(seeds), mpp
        self.given, self.tracker, self.num_draws = given, tracker, num_draws
        self.by_labels_alone, self.origin = by_labels_alone, None if origin is None else asdict(origin)
        self.tissue = TissueCache(out / "data" / "tissue")
        self.scorer = MapScorer(data, mpp, self.tissue)

    @cached_property
    def _files(self) -> str:
        """What the maps of all methods are made of, see `ComparisonData.files_of_methods`."""
        return self.data.files_of_methods(self.tissue.folder)

    def run(self, baselines: bool = True, report: Callable[[Sequence[MethodRow]], None] = lambda rows: None) -> list[MethodRow]:
        """Train, map and score what is not finished.

        Args:
            baselines: whether the trivial baselines and the ceilings get a row too.
            report: called with the rows so far whenever one is added.

        Returns:
            a row per method and per trivial baseline. Whatever goes wrong with one is that row's reason; where it goes wrong
            before anything is made, the row that an earlier call has finished of the method is shown, and says so (`refused`).
            In the folder a finished row is replaced only by a finished one. After them the rows of what earlier calls have
            compared in the same folder.
        """
        rows: list[MethodRow] = []
        begun: list[tuple[MethodRow, Callable[[MethodRow], None]]]
        begun = [(MethodRow(method.key, method.title), partial(self._method, method)) for method in self.methods]
        begun += [(MethodRow(name, BASELINES[name]), partial(self._baseline, name)) for name in BASELINES if baselines]
        begun += [(MethodRow(name, self._ceiling_title(name)), self._ceiling) for name in CEILINGS if baselines]
        kept = [row for row in kept_rows(self.out, [row.key for row, _ in begun]) if self._keep(row)]
        for row, fill in begun:
            try:
                fill(row)
            except NothingMade as error:
                row = self._as_before(row, error)
            except Exception as error:
                row.status, row.reason = FAILED, _one_line(error)
                logger.exception("%s failed", row.title)
            rows.append(row)
            if row.status == DONE and not row.refused:
                row.files = self._files
                keep_row(row, self.out)
            report([*rows, *kept])
        return [*rows, *kept]

    def _keep(self, row: MethodRow) -> bool:
        """Score the maps of an earlier call, as all others are scored now; whether they could be."""
        notes = [self.out / "runs" / row.key / f"seed={seed}" / MAPPED for seed in row.seeds]
        if row.mapped and row.mapped != [_sha256(note) if note.is_file() else "" for note in notes]:
            logger.warning("%s of an earlier call is left out: its maps have been made anew since. Compare it again", row.title)
            return False
        if row.files and row.files != self._files:
            changed = "images, tissue masks, or masks to learn from or choose by, have been changed, moved or copied since"
            logger.warning("%s of an earlier call is left out: %s. Compare it again", row.title, changed)
            return False
        try:
            scored = [self._scores(row.key, seed) for seed in row.seeds]
        except (ValueError, OSError, KeyError) as error:
            logger.warning("%s of an earlier call is left out: %s", row.title, _one_line(error))
            return False
        row.maps = [] if row.key in CEILINGS else [self._maps(row.key, seed) for seed in row.seeds]
        fill_scores(row, scored, self.data, self.num_draws)
        return True

    def _as_before(self, row: MethodRow, error: NothingMade) -> MethodRow:
        """The row that an earlier call has finished of the method; if there is none, `row` with what was wrong now."""
        row.status, row.reason = error.status, str(error)
        try:
            before = kept_row(self.out, row.key)
        except ValueError as damaged:
            before, row.reason = None, f"{error}; {damaged}"
        if before is None or not self._keep(before):
            logger.warning("%s %s: %s", row.title, row.status, row.reason)
            return row
        before.refused = f"this row is of an earlier call; with the settings of this one it is {error.status}: {error}"
        before.reason = "; ".join(filter(None, [before.refused, before.reason]))
        logger.warning("%s: %s", row.title, before.refused)
        return before

    def _all_seeds(self, key: str) -> list[int]:
        """The seeds that are asked for, and those that an earlier call has finished of the method and that are still there."""
        before = kept_row(self.out, key)
        folders = {seed: self.out / "runs" / key / f"seed={seed}" for seed in (before.seeds if before is not None else ())}
        finished = {seed for seed, folder in folders.items() if (folder / METRICS).is_file() or (folder / TRAINED).is_file()}
        more = sorted(finished - {*self.seeds})
        if more:
            named = ", ".join(map(str, more))
            logger.info("%s: an earlier call has finished the seeds %s too, and they stay in its row", key, named)
        return sorted({*self.seeds, *more})

    def _plan(self, method: Method) -> Plan:
        """The plan of the method.

        Raises:
            NothingMade: if it cannot be trained on these data.
        """
        keys = {name: value for who in ("all", method.key) for name, value in self.given.get(who, {}).items()}
        try:
            return plan(method, self.data, self.out / "data" / "tissue", keys, self.by_labels_alone)
        except NotComparable as error:
            raise NothingMade(SKIPPED, str(error)) from error
        except Exception as error:
            logger.exception("%s cannot be planned", method.title)
            raise NothingMade(FAILED, _one_line(error)) from error

    def _method(self, method: Method, row: MethodRow) -> None:
        planned = self._plan(method)
        row.effort, row.selection = planned.effort, planned.selection
        row.mpp, row.overlays, row.on_features = planned.mpp, list(method.overlays), method.on_features
        row.config = method.plain_keys(planned.settings) | planned.facts
        row.settings = {name: value for name, value in planned.settings.items() if name not in _FOLDERS}
        fixed = {
            "bundle_root": str(method.bundle),
            **planned.settings,
            "tracking_uri": self.tracker.uri,
            "tracking::experiment": self.tracker.experiment,
        }
        # The manifest's path is always the same, and so are those of its files.
        learned = [*self.data.training[method.kind], *self.data.validation[method.kind]]
        tissue = planned.settings.get("tissue_dir")
        files = files_key(learned, None if tissue is None else Path(tissue))
        notes = {"manifest sha256": _sha256(self.data.manifests[method.kind]), "files of images and masks": files}
        folder = self.out / "runs" / method.key
        seeds = self._all_seeds(method.key)
        try:
            sweep = MeasuredSweep(method.config_files, {"seed": seeds}, folder, fixed, notes=notes)
            sweep.origin = self.origin
            sweep.check()
        except ValueError as error:  # its folder was made with other settings, or a key of --set is one that compare.py sets
            said = str(error).replace("--output_dir", "--out").replace("delete the folder", f"delete {folder}")
            raise NothingMade(FAILED, said) from error
        logger.info("%s: training with %d seeds", method.title, len(seeds))
        try:
            sweep.run()
        except RuntimeError as error:
            logger.error("%s: %s", method.title, error)
        problems = {}
        for seed in seeds:
            folder = sweep.folder({"seed": seed})
            maps = self._maps(method.key, seed)
            if not sweep.is_finished({"seed": seed}):
                problems[seed] = last_line(folder / LOG)
            elif self._infer(planned, folder, maps):
                problems[seed] = last_line(folder / INFERENCE_LOG)
        minutes = [seconds(sweep.folder({"seed": seed}) / USAGE) / 60 for seed in seeds if seed not in problems]
        self._score(row, seeds, problems, minutes)

    def _infer(self, planned: Plan, folder: Path, maps: Path) -> int:
        """Map the test images with one training's network; the exit status."""
        command = [sys.executable, str(ROOT / "scripts" / "infer.py"), "--bundle", str(planned.method.bundle)]
        command += ["--manifest", str(self.data.test_manifest), "--model_dir", str(folder), "--out", str(maps)]
        if planned.method.inference_overlays:
            command += ["--overlay", *planned.method.inference_overlays]
        if planned.method.reads_features:
            # All trainings, and all methods on this encoder, map the same images: their features are computed once.
            command += ["--embed_into", str(self.out / "data" / "features" / "test")]
        for name, value in planned.inference.items():
            command += [f"--{name}", "None" if value is None else str(value)]
        return self._run(command, folder / INFERENCE_USAGE, folder / INFERENCE_LOG, maps)

    def _baseline(self, name: str, row: MethodRow) -> None:
        if name == "everything_is_tumour" and self.data.num_classes > 2:
            row.title = f"Everything is {self.data.class_names[0]}"
        kind = IMAGES if IMAGES in self.data.manifests else SLIDES
        records = self.data.training[kind]
        learns = name == "colour_only"
        if learns:
            missing = sum(record["label"] is None for record in records)
            if missing:
                row.status, row.reason = SKIPPED, f"needs label 'label': {missing} of {len(records)} training {kind} have none"
                return
        row.effort = {"labels": len(records) if learns else 0, "areas": 0, "masks": 0}
        problems, minutes, mpp = {}, [], self._mpp_of_baselines()
        seeds = self._all_seeds(name) if learns else self.seeds[:1]
        for seed in seeds:
            folder, maps = self.out / "runs" / name / f"seed={seed}", self._maps(name, seed)
            command = [sys.executable, str(ROOT / "scripts" / "comparison" / "trainings" / "baselines.py"), name]
            command += ["--manifest", str(self.data.manifests[kind]), "--test", str(self.data.test_manifest)]
            command += ["--class_names", *self.data.class_names, "--mpp", str(mpp), "--seed", str(seed)]
            command += ["--tissue", str(self.tissue.folder), "--out", str(folder), "--maps", str(maps)]
            tracking = self._tracking(folder, f"{name}, seed={seed}")
            tracking.start({"baseline": name, "seed": seed, "mpp": mpp})
            if self._run(command, folder / USAGE, folder / LOG, maps):
                problems[seed] = last_line(folder / LOG)
            else:
                minutes.append(seconds_of_colours(folder) / 60 if learns else 0.0)
                tracking.finish()
        self._score(row, seeds, problems, minutes)

    def _mpp_of_baselines(self) -> float:
        """Pixel size at which baselines read: that of the scores, or of the coarsest slide where it could not be mapped there."""
        coarsest = max((record["mpp"] or 0.0 for record in self.data.records if self.data.is_slides), default=0.0)
        return coarsest if coarsest > self.mpp * LARGEST_MPP_RATIO else self.mpp

    def _run(self, command: Sequence[str], usage: Path, log_file: Path, maps: Path) -> int:
        """Run a command that makes maps, unless it has; its exit status."""
        # Beside the network, not next to the maps: removing a training to repeat it should also give new maps.
        note = usage.with_name(MAPPED)
        manifests = {
            name: _sha256(file) for name, file in sorted({**self.data.manifests, "test": self.data.test_manifest}.items())
        }
        made_of = {"command": list(command), "sha256": manifests, "files": self._files}
        wanted = json.dumps(made_of) + "\n"
        if note.is_file() and note.read_bytes() == wanted.encode() and _has_all_maps(maps):
            return 0
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("a") as log:
            status = run_child(command_line(usage, command, self.origin), log)
        if not status:
            with atomic_path(note) as temporary:
                temporary.write_text(wanted)
        return status

    def _score(self, row: MethodRow, seeds: Sequence[int], problems: Mapping[int, str], minutes: Sequence[float]) -> None:
        """Fill in what the maps score, of the seeds that have no problem."""
        row.reason = "; ".join(f"seed {seed}: {reason}" for seed, reason in problems.items())
        scored: list[Scores] = []
        for seed in (seed for seed in seeds if seed not in problems):
            maps, folder = self._maps(row.key, seed), self.out / "runs" / row.key / f"seed={seed}"
            try:
                scores = self._scores(row.key, seed)
            except (ValueError, OSError, KeyError) as error:
                row.reason = "; ".join(filter(None, [row.reason, f"seed {seed}: {_one_line(error)}"]))
                continue
            scored.append(scores)
            row.seeds.append(seed)
            row.maps.append(maps)
            row.mapped.append(_sha256(folder / MAPPED))
            row.mlflow_runs.append(self._log(folder, scores))
            row.origins.append(distinct(attempts_in(folder)))
        if not scored:
            row.status = FAILED
            return
        fill_scores(row, scored, self.data, self.num_draws)
        row.training_minutes = sum(minutes) / len(minutes) if minutes else math.nan
        folders = [self.out / "runs" / row.key / f"seed={seed}" for seed in row.seeds]
        row.seconds_per_image = mean_seconds(row.maps, [folder / INFERENCE_USAGE for folder in folders])
        row.peak_bytes, row.gpu_bytes = (peak(folders, what) for what in ("peak_bytes", "gpu_bytes"))

    def _ceiling_title(self, name: str) -> str:
        size_um = self.data.region_size_um
        instances = f"{INSTANCES_PER_SIDE} x {INSTANCES_PER_SIDE} instances"
        if self.data.is_slides and size_um is not None:
            instances = f"regions of {size_um[0]:g} um"
        return CEILINGS[name].format(unit="slide" if self.data.is_slides else "image", instances=instances)

    def _ceiling(self, row: MethodRow) -> None:
        """Fill in what labels that are all right would score."""
        row.seeds = [0]
        fill_scores(row, [self._scores(row.key, 0)], self.data, self.num_draws)
        row.mlflow_runs = [""]

    def _scores(self, key: str, seed: int) -> Scores:
        if key in CEILINGS:
            return self.scorer.ceiling(key, self.out / "scores" / f"{key}.npz")
        return self.scorer.score(self._maps(key, seed), self.out / "scores" / key / f"seed={seed}.npz")

    def _log(self, folder: Path, scores: Scores) -> str:
        """Log one training's scores below its MLflow run; the id of that run, or nothing where MLflow cannot be reached."""
        tracking = self._tracking(folder)
        found = intervals([scores], num_draws=1)
        means = {name: found[name].mean for name in found if self.tracker.scores is None or name in self.tracker.scores}
        tracking.log_stage("comparison", means)
        tracking.finish_stage("comparison")
        return tracking.known_parent_run() or ""

    def _tracking(self, folder: Path, run_name: str | None = None) -> Tracking:
        return Tracking(folder, self.tracker.experiment, self.tracker.uri, run_name)

    def _maps(self, key: str, seed: int) -> Path:
        return self.out / "maps" / key / f"seed={seed}"


def _has_all_maps(maps: Path) -> bool:
    """Whether every image that the table of a folder calls finished has its map there."""
    rows = read_rows(maps / TABLE_NAME) if (maps / TABLE_NAME).is_file() else {}
    return bool(rows) and all((maps / f"{name}{MAP_SUFFIX}").is_file() for name, row in rows.items() if row["status"] in FINISHED)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
