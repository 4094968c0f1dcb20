import numpy as np
import pytest
from scipy import ndimage
from skimage import color, morphology
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared.synthetic import BREAST_MPP, CLASS_NAMES, sample_stain, synthesize_breast_patch, synthesize_breast_slide
from shared.synthetic.breast import centred_component

LABELS = range(4)
SLIDE_PX = (430, 510)


def components(labels, label):
    found, count = ndimage.label(labels == label, np.ones((3, 3)))
    return [found == k for k in range(1, count + 1)]


def middle(component):
    rows, columns = ndimage.find_objects(component.astype(int))[0]
    return (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2


@pytest.fixture(scope="module")
def labelled():
    return {label: [synthesize_breast_patch(seed, label) for seed in range(label, 64, 4)] for label in LABELS}


@pytest.fixture(scope="module")
def centred():
    return {label: [synthesize_breast_patch(100 + seed, label, centred=True) for seed in range(10)] for label in (1, 2, 3)}


@pytest.fixture(scope="module")
def slide():
    return synthesize_breast_slide(3, (1, 2, 3), SLIDE_PX)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("centred", [False, True])
def test_same_seed_same_bytes(label, centred):
    first, again = (synthesize_breast_patch(5, label, centred, size_px=64) for _ in range(2))
    other = synthesize_breast_patch(6, label, centred, size_px=64)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.image != other.image).any()
    assert (first.image.shape, first.image.dtype) == ((64, 64, 3), np.uint8)
    assert (first.labels.shape, first.labels.dtype) == ((64, 64), np.uint8)


def test_another_stain_changes_colours_alone():
    stains = [sample_stain(np.random.default_rng(seed)) for seed in range(2)]
    first, second = (synthesize_breast_patch(5, 1, stain=stain) for stain in stains)
    np.testing.assert_array_equal(first.labels, second.labels)
    grey = [patch.image.mean(axis=-1).ravel() for patch in (first, second)]
    assert np.corrcoef(*grey)[0, 1] > 0.95
    assert np.abs(first.image.astype(int) - second.image).mean() > 3


@pytest.mark.parametrize("label", LABELS)
def test_a_labelled_patch_is_mainly_of_its_class(labelled, label):
    for patch in labelled[label]:
        counts = np.bincount(patch.labels.ravel(), minlength=4)
        assert len(counts) == 4
        others = counts[1:].sum() - (counts[label] if label else 0)
        if label:
            # A pixel of the patch stands for four that were counted.
            assert counts[label] > 0.07 * counts.sum()
            assert counts[label] >= 1.9 * others
        else:
            assert others == 0


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_centred_patch_has_a_component_of_its_class_in_its_middle(centred, label):
    shares = []
    for _, labels in centred[label]:
        distances = [np.abs(np.subtract(middle(component), 64)).max() for component in components(labels, label)]
        # At half the resolution a component that touches another by a corner may come apart.
        assert min(distances) <= 4
        shares.append((labels == label).mean())
    assert min(shares) < 0.1
    assert max(shares) > 2 * min(shares)


def test_some_patches_hold_lesions_of_several_classes(centred):
    several = [len(np.unique(patch.labels)) > 2 for patches in centred.values() for patch in patches]
    assert 2 <= sum(several) <= 15


def test_component_that_a_patch_is_centred_on():
    labels = np.zeros((60, 80), np.uint8)
    rng = np.random.default_rng(0)
    assert centred_component(labels, 2, rng) is None
    labels[10:30, 20:50] = 2
    labels[40:44, 2:6] = 2  # too small
    labels[35:58, 55:75] = 3
    assert {centred_component(labels, 2, rng) for _ in range(8)} == {(35, 20)}
    assert centred_component(labels, 3, rng) == (65, 46)
    assert centred_component(labels, 1, rng) is None


@pytest.mark.parametrize("label", [-1, 4])
def test_rejects_unknown_classes(label):
    with pytest.raises(ValueError, match=rf"label in 0\.\.3; got {label}"):
        synthesize_breast_patch(0, label)
    with pytest.raises(ValueError, match=rf"classes 1\.\.3; got \[{label}\]"):
        synthesize_breast_slide(0, (1, label), SLIDE_PX)
    assert len(CLASS_NAMES) == 4


def test_structures_of_the_classes(centred):
    """What makes each class: open glands inside benign lesions, solid round ducts, ragged borders."""
    raggedness, open_share = {}, {}
    for label, patches in centred.items():
        compact, lumen = [], []
        for image, labels in patches:
            inside = labels == label
            largest = max(components(labels, label), key=np.sum)
            perimeter = (largest & ~ndimage.binary_erosion(largest)).sum()
            compact.append(perimeter / np.sqrt(largest.sum()))
            # White, and enclosed: neither stained nor glass at the border.
            lumen.append((image[inside].min(axis=-1) > 205).mean())
        raggedness[label], open_share[label] = np.median(compact), np.mean(lumen)
    assert raggedness[3] > 1.25 * raggedness[1]
    assert raggedness[3] > 1.25 * raggedness[2]
    assert open_share[1] > 2 * open_share[2]
    assert open_share[1] > 2 * open_share[3]


def test_colours_do_not_tell_the_classes_apart(labelled):
    images = [(patch.image.reshape(-1, 3), label) for label, patches in labelled.items() for patch in patches]
    features = [[*pixels.mean(axis=0), *pixels.std(axis=0)] for pixels, _ in images]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    accuracy = cross_val_score(model, features, [label for _, label in images], cv=4).mean()
    assert accuracy < 0.6


def test_most_of_a_patch_is_stained_tissue(labelled):
    """The paper drops patches with less than 75 % foreground: saturation above a tenth, holes filled, opened."""
    shares = []
    for patch in (patch for patches in labelled.values() for patch in patches[:6]):
        saturation = color.rgb2hsv(patch.image)[..., 1]
        foreground = morphology.opening(ndimage.binary_fill_holes(saturation > 0.1), morphology.disk(1))
        shares.append(foreground.mean())
    assert np.mean(np.array(shares) >= 0.75) > 0.7
    assert min(shares) > 0.3


def test_slide(slide):
    again = synthesize_breast_slide(3, (1, 2, 3), SLIDE_PX)
    for first, second in zip(slide, again, strict=True):
        np.testing.assert_array_equal(first, second)
    assert slide.image.shape == (*SLIDE_PX, 3)
    assert slide.labels.shape == slide.tissue.shape == SLIDE_PX
    assert set(np.unique(slide.labels)) == {0, 1, 2, 3}
    assert not slide.labels[~slide.tissue].any()
    assert 0.3 < slide.tissue.mean() < 0.8
    assert not slide.tissue[0].any()
    assert np.median(slide.image[~slide.tissue], axis=0).min() > 220
    assert BREAST_MPP == 8.0


def test_slide_without_lesions():
    assert not synthesize_breast_slide(4, (), SLIDE_PX).labels.any()
