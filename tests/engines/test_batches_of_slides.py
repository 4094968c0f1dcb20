import pytest
import torch
from torch import nn

from shared.data import TileAugmentation
from shared.engines import BagInferer, SlideBags
from shared.networks import InstanceClassifier

NUM_BAGS, NUM_TILES, SIZE_PX = 2, 5, 64


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (NUM_BAGS, NUM_TILES, SIZE_PX, SIZE_PX, 3), generator=generator, dtype=torch.uint8)
    return {"tiles": tiles, "label": torch.tensor([0, 1]), "index": torch.tensor([3, 4])}


def classifier(dense_stride=None, norm="batch"):
    torch.manual_seed(0)
    return InstanceClassifier("resnet10", dense_stride=dense_stride, norm=norm).eval()


class Recorder(nn.Module):
    """Logits of the mean red; keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        return images[:, :1].float().mean(dim=(2, 3))


def test_tiles_and_labels(batch):
    tiles, labels = SlideBags()(batch, torch.device("cpu"))
    assert (tiles.dtype, labels.dtype, labels.tolist()) == (torch.uint8, torch.float32, [0.0, 1.0])
    assert torch.equal(tiles, batch["tiles"].permute(0, 1, 4, 2, 3))


def test_channels_last_without_a_copy(batch):
    """From the loader's memory to the network: the same bytes."""
    network = Recorder()
    BagInferer(chunk_size=4)(SlideBags()(batch)[0], network)
    assert [len(seen) for seen in network.seen] == [4, 4, 2]
    assert all(seen.is_contiguous(memory_format=torch.channels_last) for seen in network.seen)
    first = batch["tiles"].data_ptr()
    assert [seen.data_ptr() - first for seen in network.seen] == [0, 4 * SIZE_PX**2 * 3, 8 * SIZE_PX**2 * 3]


def test_augmentation_is_of_each_tile(batch):
    """Equal tiles are turned and coloured differently, and each as if it came in a flat batch."""
    batch["tiles"][:] = batch["tiles"][0, 0].clone()
    augmentation = TileAugmentation(0.2, 0.05)
    torch.manual_seed(0)
    tiles, _ = SlideBags(augmentation)(batch)
    assert tiles.shape == (NUM_BAGS, NUM_TILES, 3, SIZE_PX, SIZE_PX)
    assert tiles.dtype == torch.float32
    flat = tiles.flatten(0, 1)
    assert flat.is_contiguous(memory_format=torch.channels_last)
    assert not any(torch.equal(flat[i], flat[j]) for i in range(len(flat)) for j in range(i))
    torch.manual_seed(0)
    assert torch.equal(flat, augmentation(batch["tiles"].flatten(0, 1).permute(0, 3, 1, 2)))


@pytest.mark.parametrize("chunk_size", [1, 3, 10, 100])
@torch.no_grad()
def test_chunks_change_nothing_in_eval_mode(batch, chunk_size):
    tiles, _ = SlideBags()(batch)
    network = classifier()
    logits = BagInferer()(tiles, network)
    assert (logits.shape, logits.dtype) == ((NUM_BAGS, NUM_TILES), torch.float32)
    torch.testing.assert_close(BagInferer(chunk_size=chunk_size)(tiles, network), logits, rtol=1e-5, atol=1e-5)
    alone = torch.stack([torch.cat([network(tile[None])[0] for tile in bag]) for bag in tiles])
    torch.testing.assert_close(logits, alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_dense_network_by_place_and_by_tile(batch):
    tiles, _ = SlideBags()(batch)
    network = classifier(16)
    maps = network(tiles.flatten(0, 1))
    assert maps.shape == (NUM_BAGS * NUM_TILES, 1, 4, 4)
    by_place = BagInferer()(tiles, network)
    torch.testing.assert_close(by_place, maps.reshape(NUM_BAGS, NUM_TILES * 16), rtol=1e-5, atol=1e-5)
    by_tile = BagInferer(per_tile=True, chunk_size=3)(tiles, network)
    expected = torch.stack([torch.stack([maps[b * NUM_TILES + t].mean() for t in range(NUM_TILES)]) for b in range(NUM_BAGS)])
    torch.testing.assert_close(by_tile, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_per_tile_changes_nothing_without_a_dense_head(batch):
    tiles, _ = SlideBags()(batch)
    assert torch.equal(BagInferer(per_tile=True)(tiles, classifier()), BagInferer()(tiles, classifier()))


def test_batch_normalisation_sees_all_bags_at_once(batch):
    tiles, _ = SlideBags()(batch)
    norm = nn.BatchNorm2d(3, momentum=1.0)
    network = nn.Sequential(norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
    BagInferer()(tiles.float(), network.train())
    torch.testing.assert_close(norm.running_mean, tiles.float().mean(dim=(0, 1, 3, 4)))


def test_gradients_flow(batch):
    network = classifier().train()
    BagInferer()(SlideBags()(batch)[0], network).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
