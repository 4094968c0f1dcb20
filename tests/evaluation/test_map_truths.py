"""Which slides' pixels are scored, by the truth that is asked for, and which are scored apart."""

import numpy as np
import pytest
import tifffile
from sklearn.metrics import precision_score, roc_auc_score

from .map_reference import METHOD, THRESHOLD, PaintOrGlass, assert_same, at_map_pixels, reference, table


def test_a_normal_slide_needs_no_mask(tmp_path, evaluation, cohort):
    expected = evaluation(tmp_path / "e", cohort).run()
    for record in cohort:
        if record["label"] == 0:
            record["mask"] = None
    assert evaluation(tmp_path / "e", cohort).run() == expected


def test_slides_without_masks_are_scored_by_their_labels(tmp_path, evaluation, cohort, capsys):
    expected = evaluation(tmp_path / "with", cohort).run()
    rows = table(tmp_path / "with")
    assert "Pixels" in capsys.readouterr().out
    for record in cohort:
        record["mask"] = None
    cohort[1]["split"] = "val"  # not looked at
    found = evaluation(tmp_path / "without", cohort).run()
    assert found == {name: expected[name] for name in ("split", "num_slides", "threshold", "slides")}
    assert [row["score"] for row in table(tmp_path / "without")] == [row["score"] for row in rows]
    assert "Pixels" not in capsys.readouterr().out
    assert (tmp_path / "without/examples.png").exists()


@pytest.mark.parametrize(("column", "behind"), [("group", ", {}"), ("location", ", location {}")])
def test_groups_and_locations_are_scored_apart(tmp_path, evaluation, cohort, tissue, capsys, column, behind):
    alone = {}
    for name, records in (("a", cohort[:2]), ("b", cohort[2:])):
        alone[name] = evaluation(tmp_path / name, records, num_examples=0).run()
        for record in records:
            record[column] = name
    # In any order of the rows.
    mixed = [cohort[index] for index in (2, 0, 3, 1)]
    found = evaluation(tmp_path / "e", mixed).run()
    whole, _ = reference(tmp_path / "e", mixed, tissue)
    for kind in ("slides", "pixels_tissue", "pixels_all"):
        expected = dict(whole[kind])
        for group, metrics in alone.items():
            expected |= {name + behind.format(group): scores for name, scores in metrics[kind].items()}
        assert_same(found[kind], expected)
    assert [row[column] for row in table(tmp_path / "e")] == ["b", "a", "b", "a"]
    assert METHOD + behind.format("b") in capsys.readouterr().out


@pytest.mark.parametrize(("column", "behind"), [("group", ", a"), ("location", ", location a")])
def test_one_value_divides_slides_only_from_those_without(tmp_path, evaluation, cohort, column, behind):
    expected = evaluation(tmp_path / "e", cohort[:3], num_examples=0).run()
    assert evaluation(tmp_path / "e", [record | {column: "a"} for record in cohort[:3]], num_examples=0).run() == expected
    assert column not in table(tmp_path / "e")[0]
    alone = evaluation(tmp_path / "alone", cohort[:2], num_examples=0).run()
    divided = [*(record | {column: "a"} for record in cohort[:2]), cohort[2]]
    found = evaluation(tmp_path / "e", divided, num_examples=0).run()
    assert [row[column] for row in table(tmp_path / "e")] == ["a", "a", ""]
    for kind in ("slides", "pixels_tissue", "pixels_all"):
        assert_same(found[kind], expected[kind] | {name + behind: scores for name, scores in alone[kind].items()})


def test_normal_slides_count_as_zero(tmp_path, evaluation, cohort, tissue, paint_finder):
    """The scores are those of the tumour slides' pixels and of normal ones that are all 0; slides keep their own scores."""
    network = PaintOrGlass(paint_finder(), 3.0)
    plain = evaluation(tmp_path / "e", cohort, network, num_examples=0).run()
    zeroed = evaluation(tmp_path / "e", cohort, network, num_examples=0, normal_is_zero=True).run()
    assert zeroed["slides"] == plain["slides"]
    truths, values = [], []
    for record in cohort:
        name = record["image"].split("/")[-1].removesuffix(".tif")
        of_map = tifffile.imread(tmp_path / f"e/maps/{name}.ome.tif", key=0) * (record["label"] > 0)
        truth, is_tissue = at_map_pixels(record, of_map.shape, tissue)
        truths.append(truth[is_tissue])
        values.append(of_map[is_tissue])
    truth, value = np.concatenate(truths), np.concatenate(values)
    found = zeroed["pixels_tissue"][METHOD]
    assert found["auc"] == pytest.approx(roc_auc_score(truth, value))
    assert found["precision"] == pytest.approx(precision_score(truth, value >= 255 * THRESHOLD))
    assert found["specificity"] > plain["pixels_tissue"][METHOD]["specificity"]


def test_masks_of_some_slides(tmp_path, evaluation, cohort, tissue):
    with_masks = evaluation(tmp_path / "with", [cohort[0], cohort[1], cohort[3]], num_examples=0).run()
    labels = evaluation(tmp_path / "labels", cohort, num_examples=0, truth=None).run()["slides"]
    for index in (1, 2, 3):
        cohort[index]["mask"] = None
    # Asked for masks, it does without any.
    assert "pixels_all" not in evaluation(tmp_path / "e", cohort, num_examples=0).run()
    found = evaluation(tmp_path / "e", cohort, num_examples=4, truth="masks_where_given").run()
    assert found["slides"] == labels
    assert (found["num_slides"], found["num_slides_scored_by_pixel"]) == (4, 3)
    for kind in ("pixels_tissue", "pixels_all"):
        assert_same(found[kind], with_masks[kind])
    rows = table(tmp_path / "e")
    assert (rows[2]["tp"], rows[2]["auc"]) == ("", "")
    assert rows[0]["tp"] == table(tmp_path / "with")[0]["tp"]
    # A group without any truth has its slides' labels alone.
    for index, record in enumerate(cohort):
        record["group"] = "b" if index == 2 else "a"
    found = evaluation(tmp_path / "e", cohort, num_examples=0, truth="masks_where_given").run()
    assert list(found["slides"]) == [METHOD, f"{METHOD}, a", f"{METHOD}, b"]
    assert list(found["pixels_all"]) == [METHOD, "Everything is tumour", f"{METHOD}, a", "Everything is tumour, a"]
    cohort[0]["mask"] = None
    found = evaluation(tmp_path / "e", cohort, num_examples=0, truth="masks_where_given").run()
    assert not {"pixels_all", "num_slides_scored_by_pixel"} & set(found)


def test_slides_with_mask_files_alone(tmp_path, evaluation, cohort):
    """Normal slides without a file are in no sum of pixels; the labels of all are scored."""
    labels = evaluation(tmp_path / "labels", cohort, num_examples=0, truth=None).run()["slides"]
    chosen = [index for index, record in enumerate(cohort) if record["label"] > 0]
    expected = evaluation(tmp_path / "some", [cohort[index] for index in chosen], num_examples=0).run()
    for index, record in enumerate(cohort):
        record["mask"] = record["mask"] if index in chosen else None
    found = evaluation(tmp_path / "e", cohort, num_examples=0, truth="masks_only").run()
    assert found["slides"] == labels
    assert found["num_slides_scored_by_pixel"] == len(chosen) < len(cohort)
    for kind in ("pixels_tissue", "pixels_all"):
        assert_same(found[kind], expected[kind])


def test_unknown_truth(tmp_path, evaluation, cohort):
    with pytest.raises(ValueError, match="one of mask, masks_where_given, masks_only or None, got 'masks'"):
        evaluation(tmp_path, cohort, truth="masks")


def test_no_split_and_no_mask_column(tmp_path, evaluation, cohort):
    bare = [{"image": record["image"], "label": record["label"], "mpp": None, "row": 2} for record in cohort]
    assert evaluation(tmp_path / "e", bare).run()["slides"][METHOD]["auc"] == 1.0
