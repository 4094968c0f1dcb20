import logging

import pytest
from ignite.engine import Events

from shared.engines import Steps


class Rates:
    """The learning rate of every step."""

    def __init__(self):
        self.rates = []

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self.rates.append(engine.optimizer.param_groups[0]["lr"]))


@pytest.mark.parametrize(
    ("min_steps", "batch", "max_epochs", "batches", "epochs"),
    [
        (0, "mini", 12, 6, 12),
        (72, "mini", 12, 6, 12),
        (73, "mini", 12, 6, 13),
        (200, "mini", 12, 6, 34),
        (5, "mini", 12, 6, 12),
        (20, "full", 12, 6, 20),
    ],
)
def test_epochs_that_make_enough_steps(min_steps, batch, max_epochs, batches, epochs):
    assert Steps(batch=batch, min_steps=min_steps).epochs(max_epochs, batches) == epochs


def test_fewer_than_no_steps():
    with pytest.raises(ValueError, match="min_steps must be at least 0, got -1"):
        Steps(min_steps=-1)


def test_a_stage_takes_the_steps_that_it_needs(tmp_path, make_stage, interrupt_at, interruption, caplog):
    """Three steps an epoch: two epochs become four, and the rate falls over all twelve steps, resumed or not."""
    caplog.set_level(logging.INFO)
    steps, rates = Steps(final_lr_share=0.0, min_steps=10), Rates()
    stage = make_stage(tmp_path / "whole", max_epochs=2, steps=steps, train_handlers=[rates])
    stage.run()
    assert rates.rates == pytest.approx([0.01 * (1 - step / 12) for step in range(12)])
    assert len(stage.history) == 4
    assert "whole: 2 epochs would be fewer than 10 steps (min_steps), so 4 epochs are run" in caplog.messages
    interrupt = interrupt_at(3, Events.ITERATION_COMPLETED(every=2))
    with pytest.raises(interruption):
        make_stage(tmp_path / "parts", max_epochs=2, steps=steps, train_handlers=[interrupt]).run()
    make_stage(tmp_path / "parts", max_epochs=2, steps=steps).run()
    assert (tmp_path / "parts/model.pt").read_bytes() == (tmp_path / "whole/model.pt").read_bytes()
