"""Scores of maps against masks: recomputed pixel by pixel, and by the scorer of finished maps."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from scripts.comparison import data as comparison_data
from scripts.comparison.data import files_key, prepare_data
from scripts.comparison.scores.scoring import MapScorer
from scripts.comparison.trainings.baselines import make_network
from shared.data import TissueCache, load_manifest, slide_regions, write_manifest
from shared.evaluation.maps.cohort import MapCohort
from shared.evaluation.maps.report import tumour_map_report
from shared.inference import Compute, SlideMapper, Tiles
from shared.metrics import boundary_counts, region_f_measure
from shared.writers import read_rows, write_rows
from shared.writers.ome_tiff import write_ome_tiff_channels

from .conftest import Redness


class Rows:
    """An array as a source of rows."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def read_rows(self, start, stop):
        return self.values[start:stop]


@pytest.fixture
def scorer(data, tmp_path):
    def make(mpp, data=data):
        return MapScorer(data, mpp, TissueCache(tmp_path / "tissue"))

    return make


@pytest.mark.parametrize("mpp", [0.5, 1.0, 0.7])
def test_every_grid_pixel_has_the_map_and_the_mask_below_its_middle(data, maps, scorer, tmp_path, mpp):
    """Recomputed in loops; 0.7 um is no multiple of anything."""
    scores = scorer(mpp).score(maps, tmp_path / "scores.npz")
    side, least = round(96 * 0.5 / mpp), math.ceil(255 * 0.4)
    for index, record in enumerate(data.records):
        mask = np.asarray(Image.open(record["mask"])) > 0
        values = tifffile.imread(maps / f"{Path(record['image']).stem}.ome.tif")
        middles = [(step + 0.5) * mpp / 0.5 for step in range(side)]
        truth = np.array([[mask[math.floor(y), math.floor(x)] for x in middles] for y in middles])
        found = np.array([[values[math.floor(y / 2), math.floor(x / 2)] for x in middles] for y in middles])
        decided = found >= least
        expected = [(decided & truth).sum(), (decided & ~truth).sum(), (~decided & truth).sum(), (~decided & ~truth).sum()]
        assert scores.counts[index].tolist() == expected
        for positive, part in enumerate((~truth, truth)):
            assert scores.everywhere[index, positive].tolist() == np.bincount(found[part], minlength=256).tolist()
        assert scores.region_f[index] == pytest.approx(_region_f(decided, truth, record["label"]))
        wanted = boundary_counts(found / np.float32(255), truth) if record["label"] else np.zeros((99, 4))
        assert (scores.boundary[index] == wanted).all()
    assert scores.cases.tolist() == ["case2", "case2", "case3", "case3"]
    # What is white is no tissue: a corner of each image.
    assert (scores.tissue.sum((1, 2)) < side**2).all()
    assert (scores.tissue <= scores.everywhere).all()


def _region_f(decided, truth, label):
    import torch

    return float(region_f_measure(torch.from_numpy(decided), torch.from_numpy(truth), torch.tensor(label)))


def test_scores_are_kept_until_something_changes(data, maps, scorer, tmp_path):
    file = tmp_path / "scores.npz"
    scorer(1.0).score(maps, file)
    written = file.stat().st_mtime_ns
    scorer(1.0).score(maps, file)
    assert file.stat().st_mtime_ns == written
    scorer(0.5).score(maps, file)
    assert file.stat().st_mtime_ns != written
    whole = file.read_bytes()
    for damaged in (b"half a fi", b"", whole[: len(whole) // 2], whole[:300] + bytes(300) + whole[600:]):
        file.write_bytes(damaged)
        assert scorer(0.5).score(maps, file).counts.shape == (4, 4)


def test_a_map_that_is_not_there(data, scorer, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"threshold": 0.5}))
    write_rows(tmp_path / "slides.csv", [{"slide": "i4", "status": "failed"}])
    with pytest.raises(ValueError, match=r"row 6, .*i4\.png: has no finished map in .* \(failed\)"):
        scorer(1.0).score(tmp_path, tmp_path / "scores.npz")


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Two slides with tissue on glass, one of them with tumour, mapped with the tissue only."""
    folder = tmp_path_factory.mktemp("slides")
    lines = ["image,label,mask,split"]
    for name, split in (("tumour", "test"), ("normal", "test"), ("other", "train")):
        rgb, mask = np.full((500, 700, 3), 250, np.uint8), np.zeros((500, 700), np.uint8)
        rgb[80:420, 80:620] = (200, 120, 180)
        if name == "tumour":
            rgb[150:300, 200:400], mask[160:310, 180:400] = (220, 20, 60), 1
        options = {"tile": (256, 256), "compression": "zlib", "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(folder / f"{name}.tif", rgb, photometric="rgb", metadata=None, **options)
        Image.fromarray(mask * 255).save(folder / f"{name}.png")
        lines.append(f"{name}.tif,{int(name == 'tumour')},{name}.png,{split}")
    (folder / "slides.csv").write_text("\n".join(lines) + "\n")
    data = prepare_data(folder / "slides.csv", folder / "data", region_size_px=64)
    mapper = SlideMapper(
        Redness(), threshold=0.4, tiles=Tiles(tile_size_px=128, margin_px=0), compute=Compute(amp=False, device="cpu")
    )
    mapper.run(data.test_manifest, folder / "maps")
    return data, folder / "maps"


def test_slides_score_as_finished_maps_do(slides, tmp_path):
    """On the maps' own grid, `scripts/evaluate.py`'s scorer counts the same pixels."""
    data, maps = slides
    assert data.is_slides
    map_mpp = float(read_rows(maps / "slides.csv")["tumour"]["map_mpp"])
    tissue = TissueCache(tmp_path / "tissue")
    scores = MapScorer(data, map_mpp, tissue).score(maps, tmp_path / "scores.npz")
    _, rows = tumour_map_report(MapCohort(maps, load_manifest(data.manifest, split="test"), tissue), threshold=0.4)
    for row, counts in zip(rows, scores.counts, strict=True):
        assert counts.tolist() == [row[name] for name in ("tp", "fp", "fn", "tn")]
    # Background is white: it scores 0, and only the AUC that counts it sees it.
    assert scores.tissue.sum() < scores.everywhere.sum()
    assert scores.tissue[0, 1].sum() == scores.counts[0, [0, 2]].sum()


def blank_left_half(tissue, slide):
    """Edit a tissue mask as a person would, who saves the file in its place."""
    (file,) = tissue.folder.glob(f"{Path(slide).stem}.*.png")
    found = file.read_bytes()
    mask = np.array(Image.open(file))
    mask[:, : mask.shape[1] // 2] = 0
    Image.fromarray(mask).save(file)
    return lambda: file.write_bytes(found)


def test_scores_are_of_the_tissue_as_it_was_edited(slides, tmp_path):
    """Those of an earlier call too: all rows of a table are of the same pixels."""
    data, maps = slides
    tissue = TissueCache(tmp_path / "tissue")
    scorer = MapScorer(data, 1.0, tissue)
    unknown = scorer._key([])
    before = scorer.score(maps, tmp_path / "scores.npz")
    ceiling = scorer.ceiling("true_labels", tmp_path / "ceiling.npz")
    # Tissue that was found, and not edited, changes no key: what is finished stays so.
    assert scorer._key([]) == unknown
    restore = blank_left_half(tissue, data.records[0]["image"])
    for scores, file, score in (
        (before, "scores", partial(scorer.score, maps)),
        (ceiling, "ceiling", partial(scorer.ceiling, "true_labels")),
    ):
        after = score(tmp_path / f"{file}.npz")
        assert 0 < after.counts[0].sum() < scores.counts[0].sum()
        assert after.counts[1].tolist() == scores.counts[1].tolist()
    restore()
    assert scorer._key([]) == unknown


@pytest.mark.parametrize(("split", "is_learned"), [("test", False), ("train", True)])
def test_methods_are_made_of_the_tissue_as_it_was_edited(slides, tmp_path, split, is_learned):
    data, _ = slides
    record = next(record for record in data.rows if record["split"] == split)
    tissue = TissueCache(tmp_path / "tissue")
    learned = data.training["slides"]

    def keys():
        return (
            data.files_of_methods(tissue.folder),
            files_key(learned, tissue.folder),
            files_key(data.training["images"], tissue.folder),
        )

    before = keys()
    assert before[1:] == (files_key(learned), files_key(data.training["images"]))
    tissue.get(record["image"], record["mpp"])
    assert keys() == before
    blank_left_half(tissue, record["image"])
    # Regions are cut from tissue of their own.
    assert [now == then for now, then in zip(keys(), before, strict=True)] == [False, not is_learned, True]


def test_colours_are_learnt_from_the_tissue_as_it_was_edited(slides, tmp_path):
    data, _ = slides
    tissue = TissueCache(tmp_path / "tissue")
    records = [record | {"label": int(record["split"] == "train")} for record in data.rows]
    write_manifest([record | {"split": "train"} for record in records], tmp_path / "slides.csv")

    def weights():
        network = make_network("colour_only", tmp_path / "slides.csv", 2, 1.0, tissue, tmp_path, seed=0)
        return network.state_dict()["weight"]

    before = weights()
    assert torch.equal(weights(), before)
    blank_left_half(tissue, records[0]["image"])
    assert not torch.equal(weights(), before)


def test_slides_with_masks_are_cut_into_regions(slides):
    data, _ = slides
    assert set(data.manifests) == {"slides", "images"}
    assert data.region_size_um == (32.0, 32.0)
    regions = load_manifest(data.manifests["images"])
    assert {region["label"] for region in regions if region["split"] == "test"} == {0, 1}
    assert {Path(region["image"]).stem for region in regions if region["split"] == "train"} == {"other"}


def test_regions_are_cut_once(slides, monkeypatch):
    """Finding tissue takes seconds per slide: the second time they are read, and cut again where the size is another."""
    data, _ = slides
    cut = []

    def counted(record, *arguments, **options):
        cut.append(record)
        return slide_regions(record, *arguments, **options)

    monkeypatch.setattr(comparison_data, "slide_regions", counted)
    folder = data.manifests["images"].parent
    before = data.manifests["images"].read_bytes()
    again = prepare_data(data.manifest, folder, region_size_px=64)
    assert not cut
    assert again.manifests["images"].read_bytes() == before
    assert again.region_size_um == data.region_size_um
    assert [row["label"] for row in again.training["images"]] == [row["label"] for row in data.training["images"]]
    assert prepare_data(data.manifest, folder, region_size_px=96).region_size_um == (48.0, 48.0)
    assert len(cut) == 3


def test_several_classes(tmp_path, scorer):
    """Masks and maps of three classes: the likeliest decides, and whatever is not the first class is foreground."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (40, 40)).astype(np.uint8)
    Image.fromarray(rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(classes).save(tmp_path / "mask.png")
    Image.fromarray(rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "images.csv").write_text("image,label,mask,split,mpp\na.png,2,mask.png,test,1\nb.png,0,,train,1\n")
    data = prepare_data(tmp_path / "images.csv", tmp_path / "data", class_names=["normal", "benign", "invasive"])
    chances = rng.dirichlet(np.ones(3), (40, 40)).transpose(2, 0, 1)
    # Nothing was mapped in the first rows: no class is likely there, and it is no tumour.
    chances[:, :5] = 0
    sources = {name: Rows((255 * chance).astype(np.uint8)) for name, chance in zip("nbi", chances, strict=True)}
    write_ome_tiff_channels(tmp_path / "a.ome.tif", sources, 1.0)
    size = {"width_px": 40, "height_px": 40, "mpp": 1.0, "map_mpp": 1.0}
    write_rows(tmp_path / "slides.csv", [{"slide": "a", "status": "ok", "fingerprint": "f", **size}])
    (tmp_path / "settings.json").write_text(json.dumps({"threshold": 0.5}))
    scores = scorer(1.0, data).score(tmp_path, tmp_path / "scores.npz")
    likeliest = np.stack([source.values for source in sources.values()]).argmax(0)
    confusion = [[((classes == true) & (likeliest == said)).sum() for said in range(3)] for true in range(3)]
    assert scores.confusion[0].tolist() == confusion
    tumour, said = classes > 0, likeliest > 0
    values = 255 - sources["n"].values
    values[:5] = 0
    for positive, part in enumerate((~tumour, tumour)):
        assert scores.everywhere[0, positive].tolist() == np.bincount(values[part], minlength=256).tolist()
    assert scores.counts[0].tolist() == [
        (tumour & said).sum(),
        (~tumour & said).sum(),
        (tumour & ~said).sum(),
        (~tumour & ~said).sum(),
    ]
