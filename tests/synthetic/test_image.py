import hashlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared.synthetic import MPP, sample_tumour_share, synthesize_image


def digest(seed, share):
    image, mask = synthesize_image(seed, share, size_px=(150, 203))
    return hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_same_seed_same_bytes(share):
    assert digest(7, share) == digest(7, share)
    assert digest(7, share) != digest(8, share)


def test_same_bytes_in_another_process_with_another_number_of_threads(run_python):
    code = (
        "import hashlib\nfrom shared.synthetic import synthesize_image\n"
        "image, mask = synthesize_image(7, 0.3, size_px=(150, 203))\n"
        "print(hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest())\n"
    )
    assert run_python("-c", code, OPENBLAS_NUM_THREADS="1").stdout.strip() == digest(7, 0.3)


def test_global_random_state_is_neither_used_nor_changed():
    np.random.seed(0)  # noqa: NPY002 - the legacy state is what is tested
    before = digest(3, 0.2), np.random.get_state()[1][:5].tolist()  # noqa: NPY002
    assert before == (digest(3, 0.2), np.random.get_state()[1][:5].tolist())  # noqa: NPY002


@pytest.mark.parametrize(("share", "pixels"), [(0.0, 0), (0.05, 1000), (0.5, 10_000), (1.0, 20_000)])
def test_mask_holds_the_share_asked_for(share, pixels):
    image, mask = synthesize_image(0, share, size_px=(100, 200))
    assert (image.shape, image.dtype) == ((100, 200, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((100, 200), np.bool_)
    assert mask.sum() == pixels


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_rejects_impossible_shares(share):
    with pytest.raises(ValueError, match=f"got {share}"):
        synthesize_image(0, share, size_px=32)


def test_tumour_shares_stay_in_their_range():
    rng = np.random.default_rng(0)
    shares = [sample_tumour_share(rng) for _ in range(200)]
    assert 0.05 <= min(shares) < 0.1
    assert 0.6 < max(shares) <= 0.7


def test_has_nuclei_stroma_and_gaps():
    brightness = np.stack([synthesize_image(seed, 0.3).image.mean(axis=-1) for seed in range(6)])
    assert MPP == 0.5
    assert (brightness < 120).mean() > 0.03, "dark nuclei"
    assert (brightness > 225).mean() > 0.005, "white gaps"
    assert ((brightness > 130) & (brightness < 215)).mean() > 0.4, "stained tissue"


@pytest.mark.slow
def test_colour_statistics_do_not_tell_the_classes_apart():
    rng = np.random.default_rng(11)
    labels = np.arange(240) % 2
    features = []
    for seed, label in enumerate(labels):
        pixels = synthesize_image(seed, sample_tumour_share(rng) if label else 0.0).image.reshape(-1, 3)
        features.append([*pixels.mean(axis=0), *pixels.std(axis=0)])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    auc = cross_val_score(model, np.asarray(features), labels, cv=5, scoring="roc_auc").mean()
    assert auc < 0.65
