"""Checks within ten minutes that everything runs on a machine's GPUs, and prints a table of the results.

python scripts/check_gpu.py
python scripts/check_gpu.py --only 'training *' 'map *' --num_workers 16
python scripts/check_gpu.py --device cpu            the same without a GPU, to try out the check itself

Checked are: every bundle's short training (counting the steps that wait for the GPU), in one process and, if there are two
GPUs, in several; maps in float32, in bfloat16 and compiled, compared with those of the CPU, on the first and on the last GPU;
the augmentation of tiles; the ratios of `benchmark.py inference` and `tiles`; and the utilisation of the GPUs. The demo data
are generated if they are missing.

Exit status: 0 when nothing failed, 1 when anything did, 2 when nothing could be started.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.gpu_check.benchmarks import inference_check, tiles_check
from scripts.gpu_check.check import FAIL, PASS, SKIP, Check, Row, run_check
from scripts.gpu_check.gpu_load import Utilisation
from scripts.gpu_check.trainings import processes_check, trainable_bundles, training_check
from scripts.options.numbers import COUNT, number_above

CHECK_S = 240.0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="device to check (default cuda)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only the checks with these names; * matches anything")
    parser.add_argument(
        "--out", type=Path, default=Path("gpu_check"), help="folder for the logs and the table (default gpu_check)"
    )
    parser.add_argument("--num_workers", type=COUNT, default=8, help="loader processes per training and benchmark (default 8)")
    parser.add_argument("--jobs", type=COUNT, default=3, help="trainings run at the same time (default 3)")
    parser.add_argument(
        "--check_seconds", type=number_above(0), default=CHECK_S, help=f"limit of each check (default {CHECK_S:.0f})"
    )
    parser.add_argument(
        "--minutes", type=number_above(0), default=10, help="checks that have not begun by then are left out (default 10)"
    )
    parser.add_argument(
        "--keys", nargs="*", default=[], metavar="KEY=VALUE", help="keys to set in the train.json of every bundle that has them"
    )
    return parser.parse_args()


def checks(device: str, num_devices: int, arguments: argparse.Namespace) -> tuple[list[Check], list[Check]]:
    """All checks: those that may run in parallel, and those that need the machine to themselves."""
    out, last = arguments.out.resolve(), f"cuda:{num_devices - 1}"
    # By the precision and with the workers of real trainings.
    keys = {"amp_dtype": "bfloat16", "num_workers": str(arguments.num_workers)}
    keys |= dict(pair.split("=", 1) for pair in arguments.keys)
    bundles = trainable_bundles()
    on_cpu = "it compiles on a GPU" if device == "cpu" else None
    maps = [
        _computed("map fp32", "map_fp32", device),
        _computed("map bf16", "map_bf16", device),
        _computed("map compiled", "map_compiled", device, on_cpu),
        _computed("map last device", "map_fp32", last, None if num_devices > 1 else "there is one device"),
        _computed("augmentation", "augmentation", device),
    ]
    workers = sorted({8, arguments.num_workers})
    benchmarks = [
        *(inference_check(device, size, False, arguments.num_workers, out) for size in (32, 256)),
        *(inference_check(device, size, True, arguments.num_workers, out) for size in (256,) if device == "cuda"),
        *(tiles_check(device, number, out) for number in workers),
    ]
    together = [training_check(bundle, device, out, keys) for bundle in bundles]
    first, *others = (processes_check(bundle, device, num_devices, out, keys) for bundle in bundles)
    # What says most comes first: the time may not be enough for all.
    return together, [*maps, first, *benchmarks, *others]


def chosen(lists: tuple[list[Check], list[Check]], names: Sequence[str] | None) -> tuple[list[Check], list[Check]]:
    """The checks with these names.

    Raises:
        ValueError: if there is none.
    """
    if names is None:
        return lists
    together, alone = ([one for one in of if any(fnmatchcase(one.name, name) for name in names)] for of in lists)
    if not together and not alone:
        known = ", ".join(one.name for of in lists for one in of)
        raise ValueError(f"there is no check named {' or '.join(names)}; the checks are: {known}")
    return together, alone


def _computed(name: str, kind: str, device: str, skipped: str | None = None) -> Check:
    return Check(name, ["-m", "scripts.gpu_check.computed", kind, device], lambda log: log.strip().splitlines()[-1], skipped)


def rows_of(together: Sequence[Check], alone: Sequence[Check], arguments: argparse.Namespace) -> Iterator[Row]:
    """Run the checks and yield their rows as they finish."""
    ends = time.monotonic() + 60 * arguments.minutes

    def made(check: Check) -> Row:
        return run_check(check, sys.executable, arguments.out, min(arguments.check_seconds, ends - time.monotonic()))

    with ThreadPoolExecutor(arguments.jobs) as pool:
        yield from pool.map(made, together)
    yield from map(made, alone)


def needs_data(lists: Sequence[Sequence[Check]], keys: Sequence[str]) -> bool:
    """Whether a check reads embedded data that it would generate by itself."""
    names = {one.name.split()[0] for of in lists for one in of}
    has_own = any(pair.startswith("dataset_dir=") for pair in keys)
    return "tiles" in names or (bool(names & {"training", "processes"}) and not has_own)


def prepare_data() -> None:
    """Generate the embedded data, which trainings at a time would do at the same time."""
    from shared.synthetic import demo_manifest

    for name in ("demo/images.csv", "demo_slides/slides.csv", "demo_breast/images.csv"):
        demo_manifest(Path("data", name))


def number_of_devices(device: str) -> int:
    """GPUs, or 1 for the CPU.

    Raises:
        ValueError: if there is no GPU.
    """
    import torch

    if device == "cpu":
        return 1
    if not torch.cuda.is_available():
        raise ValueError(
            f"PyTorch {torch.__version__} finds no CUDA GPU (see nvidia-smi). Use --device cpu to try out the check itself"
        )
    return torch.cuda.device_count()


def main() -> None:
    arguments = parsed()
    try:
        num_devices = number_of_devices(arguments.device)
        wrong = [pair for pair in arguments.keys if "=" not in pair]
        if wrong:
            raise ValueError(f"--keys expects KEY=VALUE, got {wrong[0]!r}")
        lists = chosen(checks(arguments.device, num_devices, arguments), arguments.only)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if needs_data(lists, arguments.keys):
        print("preparing the demo data; if they are missing, generating them takes minutes", flush=True)
        prepare_data()
    rows = []
    with Utilisation() as utilisation, (arguments.out / "table.txt").open("w") as table:
        for row in rows_of(*lists, arguments):
            rows.append(row)
            print(row, flush=True)
            print(row, file=table, flush=True)
        if arguments.device == "cuda":
            print(f"utilisation of the GPUs: {utilisation}")
            print(f"utilisation of the GPUs: {utilisation}", file=table)
    counts = Counter(row.result for row in rows)
    print(f"{counts[PASS]} checks passed, {counts[FAIL]} failed, {counts[SKIP]} skipped; logs in {arguments.out}")
    sys.exit(1 if counts[FAIL] else 0)


if __name__ == "__main__":
    main()
