"""In no step of any training does the host wait for the device, on a simulated one."""

import pytest
import torch
from ignite.engine import Events

from shared.engines import StageTrainer
from shared.handlers import loading_speed
from tests.simulated_device import simulated_device

from . import test_attention_mil, test_fully_supervised, test_wildcat
from .runs import Bundle

pytestmark = pytest.mark.slow

TRAIN = ["@run_train"]
CAMEL = ["@run_max_max", "@run_max_min", "@run_construct", "@run_retrain", "@run_relabel", "@run_train"]
# Stages, overlays and keys.
TRAININGS = {
    "alpha/beta": ("alpha_beta", TRAIN, [], {"stain_jitter": 0.2, "ema_decay": 0.9}),
    "alpha/beta, dense": ("alpha_beta", TRAIN, [], {"dense_stride": 16}),
    "attention": ("attention", TRAIN, [], {}),
    "CAMEL": ("camel", CAMEL, [], {"cmil::num_epochs": 4, "max_min::num_epochs": 4, "cmil::lr": 0.003}),
    "CDWS": ("cdws", TRAIN, [], {}),
    "CDWS, super-pixels": ("cdws", TRAIN, ["superpixels"], {}),
    "joint": ("joint", TRAIN, [], {}),
    "joint, released head": ("joint", TRAIN, [], {"head": "released"}),
    "fully supervised": ("supervised", TRAIN, [], {}),
    "DCAN": ("supervised", TRAIN, ["dcan"], {}),
    "WILDCAT": ("wildcat", TRAIN, [], {}),
}


@pytest.fixture
def attention(easy_slides, tmp_path):
    options = test_attention_mil.TINY | {"slide_features": str(tmp_path / "features"), "mpp": 1.0, "min_steps": 0}
    bundle = Bundle("attention_mil", easy_slides, options)
    run = ["@check_configuration", "@run_embed"]
    bundle.workflow("train", output_dir=str(tmp_path / "embedded"), run=run, **options).run()
    return bundle


@pytest.fixture
def supervised(easy_data):
    return Bundle("fully_supervised", easy_data, test_fully_supervised.TINY)


@pytest.fixture
def wildcat(easy_data):
    return Bundle("wildcat", easy_data, test_wildcat.TINY)


@pytest.fixture
def steps(monkeypatch):
    """What the host waited for in every step, of one stage after another, but to measure the first ones."""
    monkeypatch.setattr(loading_speed, "_wait_for", lambda engine: None)
    found = []
    run = StageTrainer._run_with_workers

    def watch(waits):
        def counted(trainer):
            found.append([])
            trainer.add_event_handler(Events.ITERATION_STARTED, lambda _: waits.clear())
            trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: found[-1].append(dict(waits)))
            run(trainer)

        monkeypatch.setattr(StageTrainer, "_run_with_workers", counted)
        return found

    return watch


@pytest.mark.parametrize("name", TRAININGS)
def test_no_step_waits(name, request, tmp_path, monkeypatch, steps):
    fixture, stages, overlays, options = TRAININGS[name]
    bundle = request.getfixturevalue(fixture)
    options = {**bundle.tiny, **options, "tracking::enabled": False, "output_dir": str(tmp_path / "run")}
    with simulated_device(monkeypatch) as waits:
        run = ["@check_configuration", "$@run_folder.open()", *stages, "$@run_folder.close()"]
        workflow = bundle.workflow("train", *overlays, device="$torch.device('cuda')", run=run, **options)
        found = steps(waits)
        workflow.run()
    assert len(found) == sum("construct" not in stage and "relabel" not in stage for stage in stages)
    for stage in found:
        assert len(stage) > 1
        # The first images of a network are looked at, see `PixelRange`.
        assert [step for step in stage[1:] if step] == []
    # No device that the weights were trained on has to be there where they are used.
    assert all(type(values) is torch.Tensor for values in torch.load(tmp_path / "run/model.pt", weights_only=True).values())
