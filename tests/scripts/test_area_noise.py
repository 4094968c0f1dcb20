"""Which errors of annotators the benchmark tries; real trainings are the bundle's own tests."""

import json
from argparse import Namespace

import pandas as pd
import pytest

from scripts.benchmarks import area_noise
from shared.sweeps.sweep import Sweep


def test_biases_and_random_errors_are_tried_apart(tmp_path, monkeypatch):
    """Finished runs stand for trainings: F falls with either error."""
    config = tmp_path / "train.json"
    config.write_text(json.dumps({"area_offset": 0.0, "area_noise": 0.0, "seed": 0}))
    trained = []

    def finished(sweep):
        rows = []
        for values in sweep.combinations:
            trained.append((values["area_offset"], values["area_noise"], values["seed"]))
            f = 0.9 - abs(values["area_offset"]) - values["area_noise"] / 2 + values["seed"] / 100
            scores = dict.fromkeys(("f_all", "f_ca", "f_nc", "predicted_area_ca", "true_area_ca"), f)
            rows.append(values | {f"regions.{name}.{score}": f for name in ("Side output 1", "CDWS-MIL") for score in scores})
        return pd.DataFrame(rows)

    monkeypatch.setattr(Sweep, "run", finished)
    options = Namespace(config_file=[str(config)], offsets=[0.0, 0.1], noises=[0.0, 0.2], seeds=[0, 1], set=[])
    results = area_noise.run(Namespace(**vars(options), output_dir=tmp_path / "out"))
    assert sorted(trained) == [(0.0, 0.0, 0), (0.0, 0.0, 1), (0.0, 0.2, 0), (0.0, 0.2, 1), (0.1, 0.0, 0), (0.1, 0.0, 1)]
    means = {name: row["regions.CDWS-MIL.f_all mean"] for name, row in results.items()}
    assert means == pytest.approx({"0.0": 0.905, "noise 0.2": 0.805, "0.1": 0.805})
