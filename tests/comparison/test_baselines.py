"""The trivial baselines: what they answer, and that colour learns what colour tells."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.comparison.data import prepare_data
from scripts.comparison.rows.method_row import DONE
from scripts.comparison.runs import Comparison, Tracker
from scripts.comparison.trainings.attempts import seconds_of_colours
from scripts.comparison.trainings.baselines import ColourClassifier, ConstantClass, make_network, train_colours
from shared.data import TissueCache, load_manifest, read_image, write_manifest
from shared.synthetic import DemoPlan, SlidePlan, write_demo


def test_a_constant_class():
    logits = ConstantClass(3, 2)(torch.zeros(2, 3, 4, 5))
    assert logits.shape == (2, 3, 4, 5)
    assert (logits.argmax(1) == 2).all()
    assert logits.softmax(1)[:, 2].min() > 0.999


def test_features_are_means_of_optical_density():
    network = ColourClassifier(2, side_px=3)
    images = torch.randint(0, 200, (1, 3, 5, 6)).float()
    # What is white does not count, such as what lies beyond an image's edge.
    images[0, :, 2, 4] = 255
    features = network.features(images)[0]
    density = -np.log10((images[0].numpy() + 1) / 256) * (images[0].numpy() < 255)
    # In a corner the mean is over the pixels that there are.
    corner, middle = density[:, :2, :2].mean((1, 2)), density[:, 1:4, 2:5].sum((1, 2)) / 8
    for (y, x), mean in (((0, 0), corner), ((2, 3), middle)):
        red, green, blue = mean
        expected = [red, green, blue, red * red, red * green, red * blue, green * green, green * blue, blue * blue]
        assert features[:, y, x].numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_probabilities_are_those_of_the_regression(num_classes):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 300)
    network = ColourClassifier(num_classes, side_px=1)
    images = torch.from_numpy((rng.random((300, 3, 1, 1)) * 60 + 40 * labels[:, None, None, None] + 30).astype(np.float32))
    features = network.features(images)[..., 0, 0].numpy()
    network.fit(features, labels)
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression(class_weight="balanced", max_iter=500).fit(scaler.transform(features), labels)
    found = network(images).softmax(1)[..., 0, 0].numpy()
    assert found == pytest.approx(regression.predict_proba(scaler.transform(features)), abs=1e-4)


def test_a_class_that_no_image_has_is_never_said():
    network = ColourClassifier(4, side_px=1)
    features = np.random.default_rng(0).random((50, 9)).astype(np.float32)
    network.fit(features, np.arange(50) % 2 * 3)
    assert set(network(torch.rand(1, 3, 9, 9) * 255).argmax(1).unique().tolist()) <= {0, 3}


def test_colours_find_what_is_of_another_colour(images_csv, tmp_path):
    """From labels of images alone: the tumour is redder than the rest, which is in both kinds of images."""
    tissue = TissueCache(tmp_path)
    network = make_network("colour_only", images_csv, 2, 0.5, tissue, tmp_path, seed=0)
    record = load_manifest(images_csv, split="test")[1]
    chance = network(read_image(record, 0.5)[None].float()).softmax(1)[0, 1].detach().numpy()
    # Well inside the tumour and well outside.
    assert chance[60:80, 36:60].min() > 0.9
    assert chance[60:80, 2:8].mean() < 0.5
    # It is trained once.
    trained_at = (tmp_path / "model.pt").stat().st_mtime_ns
    again = make_network("colour_only", images_csv, 2, 0.5, tissue, tmp_path, seed=0)
    assert again.side_px == network.side_px
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    assert (tmp_path / "model.pt").stat().st_mtime_ns == trained_at


def test_colours_are_learned_again_from_images_that_were_changed_in_place(images_csv, tmp_path):
    """When they were learned tells: this process has the pictures of before in memory."""
    manifest = shutil.copytree(images_csv.parent, tmp_path / "images") / images_csv.name

    def learned_at():
        make_network("colour_only", manifest, 2, 0.5, TissueCache(tmp_path), tmp_path, seed=0)
        return (tmp_path / "model.pt").stat().st_mtime_ns

    before = learned_at()
    for split, same in (("test", True), ("train", False)):
        Image.new("RGB", (96, 96), (90, 160, 90)).save(load_manifest(manifest, split=split)[1]["image"])
        assert (learned_at() == before) == same


def test_colours_whose_weights_were_not_written_are_learnt_again(images_csv, tmp_path, monkeypatch):
    """As after a kill between the two files: what has weights also says how long it took."""
    tissue = TissueCache(tmp_path)
    monkeypatch.setattr(torch, "save", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make_network("colour_only", images_csv, 2, 0.5, tissue, tmp_path, seed=0)
    monkeypatch.undo()
    assert not (tmp_path / "model.pt").exists()
    make_network("colour_only", images_csv, 2, 0.5, tissue, tmp_path, seed=0)
    assert (tmp_path / "model.pt").is_file()
    assert seconds_of_colours(tmp_path) > 0


@pytest.mark.slow
def test_baselines_of_slides_that_are_coarser_than_the_scores(tmp_path):
    """They are mapped at the slides' own pixel size: what reads at 2 um is compared with them."""
    sizes = [(split, share) for split in ("train", "test") for share in (0.3, 0.0)]
    folder = write_demo(tmp_path / "demo", DemoPlan(images={}, slides=tuple(SlidePlan(*size, (420, 500)) for size in sizes)))
    records = load_manifest(folder / "slides.csv")
    for record in records:
        record["mpp"] = 2.0
    write_manifest(records, folder / "coarse.csv")
    data = prepare_data(folder / "coarse.csv", tmp_path / "out" / "data")
    comparison = Comparison(data, tmp_path / "out", [], [0], 1.0, {}, Tracker(f"sqlite:///{tmp_path}/mlruns.db", "comparison"))
    rows = {row.key: row for row in comparison.run()}
    assert {key: row.status for key, row in rows.items()} == dict.fromkeys(rows, DONE)
    assert {"everything_is_tumour", "colour_only"} <= rows.keys()


@pytest.mark.parametrize("changed", ["mpp", "seed", "manifest"])
def test_colours_are_learnt_anew_where_they_would_be_others(images_csv, tmp_path, changed):
    manifest = tmp_path / "images.csv"
    write_manifest(load_manifest(images_csv), manifest)
    tissue = TissueCache(tmp_path)
    network = make_network("colour_only", manifest, 2, 0.5, tissue, tmp_path, seed=0)
    if changed == "manifest":
        records = load_manifest(images_csv)
        for record in records:
            record["split"] = {"train": "test", "test": "train"}.get(record["split"], record["split"])
        write_manifest(records, manifest)
    options = {"mpp": 1.0 if changed == "mpp" else 0.5, "seed": int(changed == "seed")}
    again = make_network("colour_only", manifest, 2, options["mpp"], tissue, tmp_path, options["seed"])
    assert again.side_px != network.side_px or any(
        not torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items()
    )


def test_colours_of_slides(tmp_path):
    import tifffile

    lines = ["image,label,split,mpp"]
    for label, colour in enumerate(((200, 120, 180), (120, 60, 140))):
        rgb = np.full((400, 600, 3), 250, np.uint8)
        rgb[50:350, 50:550] = colour
        tifffile.imwrite(tmp_path / f"{label}.tif", rgb, photometric="rgb", tile=(256, 256), compression="zlib")
        lines.append(f"{label}.tif,{label},train,0.5")
    (tmp_path / "slides.csv").write_text("\n".join(lines) + "\n")
    network = train_colours(load_manifest(tmp_path / "slides.csv"), 2, 1.0, TissueCache(tmp_path / "tissue"), seed=0)
    for colour, is_tumour in (((120, 60, 140), True), ((200, 120, 180), False)):
        image = torch.tensor(colour).float()[None, :, None, None].expand(1, 3, 40, 40)
        chance = network(image).softmax(1)[0, 1]
        assert ((chance > 0.9) == is_tumour).all()
        assert ((chance < 0.1) != is_tumour).all()
