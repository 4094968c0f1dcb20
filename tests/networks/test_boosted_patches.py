"""Boosted trees as a network: trees against loops, maps, state dict, export."""

import numpy as np
import pytest
import torch

from shared.networks import BoostedPatches, load_weights, tree_scores


def random_images(height, width, batch_size=1):
    return torch.randint(0, 256, (batch_size, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def random_trees(num_trees, depth, num_features=118, seed=0):
    rng = np.random.default_rng(seed)
    feature = torch.from_numpy(rng.integers(0, num_features, (num_trees, 2**depth - 1)))
    threshold = torch.from_numpy(rng.uniform(0, 0.4, feature.shape).astype(np.float32))
    return feature, threshold, torch.from_numpy(rng.normal(size=(num_trees, 2**depth)))


@pytest.fixture(params=[1, 3])
def network(request):
    network = BoostedPatches(20, max_depth=request.param, patch_size_px=16)
    network.set_trees(*random_trees(18, request.param))
    return network.eval()


def walk(sample, feature, threshold, value):
    node = 0
    while node < len(feature):
        node = 2 * node + (2 if sample[feature[node]] > threshold[node] else 1)
    return value[node - len(feature)]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_trees_sample_by_sample(depth):
    trees = random_trees(37, depth, num_features=5)
    features = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(1))
    scores = tree_scores(features, *trees)
    for image in range(2):
        for sample in range(7):
            each = [walk(features[image, :, sample], *tree) for tree in zip(*trees, strict=True)]
            assert scores[image, sample] == pytest.approx(float(sum(each)))


def test_no_trees_no_opinion():
    assert (BoostedPatches(5, patch_size_px=16)(random_images(32, 40)) == 0).all()
    features = torch.rand(1, 3, 4)
    assert tree_scores(features, *random_trees(0, 1)).tolist() == [[0.0] * 4]


def test_logits_of_every_pixel(network):
    images = random_images(42, 51, batch_size=2)
    logits = network(images)
    assert logits.shape == (2, 1, 42, 51)
    assert logits.dtype == torch.float32
    assert logits.std() > 0.1
    patches = tree_scores(network.features(images).flatten(2), network.feature, network.threshold, network.value).view(2, 11, 13)
    # A pixel of a cell's middle lies 3/8 of a cell from its neighbours' middle: weights of 7/8 and 1/8 in either direction.
    corner = logits[:, 0, 9, 13]
    above, left = patches[:, 1:3, 2:4].unbind(1), slice(None)
    rows = [row[:, 0] / 8 + row[:, 1] * 7 / 8 for row in above]
    torch.testing.assert_close(corner[left], rows[0] / 8 + rows[1] * 7 / 8, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_carries_the_trees(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "model.pt")
    depth = 1 if network.feature.shape[1] == 1 else 3
    other = BoostedPatches(20, max_depth=depth, patch_size_px=16)
    load_weights(other, tmp_path / "model.pt")
    images = random_images(32, 40)
    assert torch.equal(other(images), network(images))
    with pytest.raises(ValueError, match="does not hold the weights of a BoostedPatches"):
        load_weights(BoostedPatches(21, max_depth=depth, patch_size_px=16), tmp_path / "model.pt")


def test_exports_to_torchscript(network, tmp_path):
    torch.jit.script(network).save(str(tmp_path / "network.ts"))
    images = random_images(42, 51, batch_size=2)
    assert torch.equal(torch.jit.load(str(tmp_path / "network.ts"))(images), network(images))


def test_autocast_changes_nothing(network):
    images = random_images(32, 40).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(images), network(images.contiguous(memory_format=torch.channels_last)))
        cast = network(images)
    assert torch.equal(cast, network(images))


@pytest.mark.gpu
def test_a_gpu_sees_the_same(network):
    images = random_images(64, 80, batch_size=2)
    expected = network(images)
    # A feature at a threshold may fall on either side.
    far = (network.cuda()(images.cuda()).cpu() - expected).abs() > 1e-3
    assert far.float().mean() < 0.02


def test_set_trees_replaces_all_of_them():
    network = BoostedPatches(4, patch_size_px=16)
    network.set_trees(*random_trees(4, 1))
    network.set_trees(*random_trees(2, 1, seed=1))
    assert network.value[2:].eq(0).all()
    assert network.threshold[2:].isinf().all()
    for trees in (random_trees(5, 1), random_trees(2, 2)):
        with pytest.raises(ValueError, match=r"room for trees \(4, 1\)"):
            network.set_trees(*trees)


@pytest.mark.parametrize("options", [{"num_trees": 0}, {"num_trees": 1, "max_depth": 0}])
def test_rejects_no_trees(options):
    with pytest.raises(ValueError, match="must be at least 1"):
        BoostedPatches(**options)
