import logging

import pytest
import torch

from shared.inference.tiles.fitted_batches import FittedBatches


class SmallMemory:
    def __init__(self, most_tiles):
        self.most_tiles, self.sizes = most_tiles, []

    def __call__(self, tiles, shape):
        self.sizes.append(len(tiles))
        if len(tiles) > self.most_tiles:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tiles.float()[:, None, None].expand(-1, *shape) * 2


def test_a_batch_is_halved_until_the_memory_takes_it_and_stays_so(caplog):
    network, tiles = SmallMemory(3), torch.arange(11)
    fitted = FittedBatches(network, network)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(fitted(tiles, (2, 1)), SmallMemory(11)(tiles, (2, 1)))
    assert network.sizes == [11, 5, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 1]
    assert [record.args[::2] for record in caplog.records] == [(11, 5), (5, 2)]


def test_parts_go_through_the_plain_network():
    compiled, plain = SmallMemory(4), SmallMemory(9)
    fitted = FittedBatches(compiled, plain)
    fitted(torch.arange(8), (1, 1))
    assert (compiled.sizes, plain.sizes) == ([8], [4, 4])


def test_a_single_tile_that_is_too_large_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        FittedBatches(SmallMemory(0), SmallMemory(0))(torch.arange(4), (1, 1))
