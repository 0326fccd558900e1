"""The detector keeps scikit-learn's contracts, its scores are pure functions of a row, and its
explanations add up.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from latent_ebm import RatioPrior
from latent_ebm.detection import LatentEBMDetector
from latent_ebm.detection.checks import ENERGIES
from latent_ebm.detection.fitting import broad_kernels, bulk, fit_linear, principal
from latent_ebm.kernels import KernelPrior
from samplers import MALA

IMAGES = {
    "image_shape": (1, 8, 8),
    "max_steps": 2,
    "latent_dim": 3,
    "channels": 4,
    "max_stages": 0,
}


def rows(num: int, dim: int = 5, seed: int = 0) -> np.ndarray:
    """Correlated rows (num, dim) in two clusters."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(dim, dim))
    return rng.normal(size=(num, dim)) @ mixing + 4 * rng.integers(0, 2, size=(num, 1))


def gaussian(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, 7)) @ np.random.default_rng(8).normal(
        size=(7, 7)
    )


def quick(**options: Any) -> LatentEBMDetector:
    return LatentEBMDetector(**{"max_stages": 0, "random_state": 0, **options})


@pytest.fixture(scope="module")
def staged() -> LatentEBMDetector:
    """A detector with a stage, in an odd number of dimensions."""
    detector = LatentEBMDetector(random_state=0, max_stages=1).fit(gaussian(300))
    assert len(detector.views_[0].prior.stages) == 1
    return detector


@parametrize_with_checks([LatentEBMDetector()])
def test_scikit_learn_estimator(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.where(rows(20) > 5, np.nan, rows(20)), "contains NaN"),
        (np.where(rows(20) > 5, np.inf, rows(20)), "contains infinity"),
        (np.array([["a", "b"], ["c", "d"]]), "convert string to float"),
        (np.empty((0, 3)), r"0 sample\(s\)"),
        (np.empty((5, 0)), r"0 feature\(s\)"),
        (rows(1), "minimum of 2"),
        (rows(20)[:, 0], "Expected 2D array"),
        (np.ones((30, 3)), "two different rows"),
        (1e200 * rows(20), "magnitude at most 1e[+]100"),
        (1j * rows(20), "Complex data not supported"),
    ],
)
def test_bad_rows_are_refused_in_a_sentence(X: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentEBMDetector().fit(X)
    if X.ndim == 2 and len(X) == 20:
        with pytest.raises(ValueError, match=message):
            quick().fit(rows(50)).score_samples(X)


@pytest.mark.parametrize(
    "method", ["score_samples", "decision_function", "predict", "explain", "partial_fit"]
)
def test_rows_of_another_width_and_detectors_not_fitted(method: str) -> None:
    with pytest.raises(ValueError, match="2 features, but LatentEBMDetector is expecting 5"):
        getattr(quick().fit(rows(30)), method)(rows(30)[:, :2])
    if method != "partial_fit":
        with pytest.raises(NotFittedError):
            getattr(quick(), method)(rows(3))


def duplicates() -> np.ndarray:
    return np.repeat(rows(2), 50, axis=0)


def constant_column() -> np.ndarray:
    return np.concatenate([rows(100), np.full((100, 1), 3.0)], axis=1)


def far_row() -> np.ndarray:
    return np.concatenate([rows(99), np.full((1, 5), 1e90)])


AWKWARD = {
    "two rows": lambda: rows(2),
    "copies of two rows": duplicates,
    "constant column": constant_column,
    "one row far out": far_row,
    "wide": lambda: rows(10, 80),
    "huge": lambda: 1e90 * rows(100),
    "tiny": lambda: 1e-150 * rows(100),
    "shifted": lambda: 1e9 + rows(100),
    "integers": lambda: rows(100).astype(int),
    "booleans": lambda: rows(100) > 0,
    "float32": lambda: rows(100).astype(np.float32),
    "objects": lambda: rows(100).astype(object),
    "lists": lambda: rows(100).tolist(),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_rows_have_finite_scores(name: str) -> None:
    X = np.asarray(AWKWARD[name](), dtype=float)
    detector = quick().fit(AWKWARD[name]())
    for energy in ENERGIES:
        detector.set_params(energy=energy)
        for scores in (detector.score_samples(X), detector.score_samples(1e3 * X)):
            assert scores.dtype == np.float64
            assert np.isfinite(scores).all()
        assert np.isfinite(detector.partial_fit(X).offset_)


def test_stages_on_few_different_rows_are_finite() -> None:
    X = duplicates()
    assert np.isfinite(
        LatentEBMDetector(random_state=0, max_stages=1).fit(X).score_samples(rows(50))
    ).all()


def test_dtypes_give_the_same_scores() -> None:
    X = rows(80).round()
    expected = quick().fit(X).score_samples(X)
    for dtype in (np.float32, np.int64, object):
        assert_array_equal(quick().fit(X.astype(dtype)).score_samples(X.astype(dtype)), expected)


def test_a_constant_column_that_moves_is_unusual() -> None:
    X = constant_column()
    moved = X.copy()
    moved[:, -1] = 4
    detector = quick().fit(X)
    assert (detector.score_samples(moved) < detector.score_samples(X) - 2).all()


def test_data_frames_are_known_by_their_columns() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is optional")
    frame = pandas.DataFrame(rows(50), columns=list("abcde"))
    detector = quick().fit(frame)
    assert list(detector.feature_names_in_) == list("abcde")
    assert_array_equal(
        detector.score_samples(frame), quick().fit(rows(50)).score_samples(rows(50))
    )
    with pytest.raises(ValueError, match="feature names"):
        detector.score_samples(frame[list("edcba")])


@pytest.mark.parametrize("energy", ENERGIES)
def test_scores_do_not_depend_on_the_rows_beside(staged: LatentEBMDetector, energy: Any) -> None:
    num = 2000 if energy == "elbo" else 10_000
    X = gaussian(num, seed=1)
    order = np.random.default_rng(0).permutation(num)
    staged.set_params(energy=energy)
    scores = staged.score_samples(X)
    assert_array_equal(staged.score_samples(X[order]), scores[order])
    assert_array_equal(staged.score_samples(X[:7]), scores[:7])
    assert_array_equal(
        [staged.score_samples(X[i : i + 1])[0] for i in order[:40]], scores[order[:40]]
    )
    staged.set_params(energy="joint")


def test_scores_of_images_do_not_depend_on_the_images_beside() -> None:
    X = np.tanh(rows(300, 64))
    detector = quick(**IMAGES).fit(X[:60])
    scores, order = detector.score_samples(X), np.random.default_rng(0).permutation(300)
    assert_array_equal(detector.score_samples(X[order]), scores[order])
    assert_array_equal([detector.score_samples(X[i : i + 1])[0] for i in range(20)], scores[:20])


def test_seeds_decide_all_and_the_global_state_is_left_alone() -> None:
    X = gaussian(100)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (LatentEBMDetector(random_state=3, max_stages=1).fit(X) for _ in range(2))
    other = quick(random_state=4).fit(X)
    assert_array_equal(first.score_samples(X), second.score_samples(X))
    assert not torch.equal(first.rows_, other.rows_)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.parametrize("contamination", [0.01, 0.1, 0.25, 0.5])
def test_contamination_is_the_exact_percentile(contamination: float) -> None:
    X = rows(200)
    detector = quick(contamination=contamination).fit(X)
    assert detector.offset_ == np.percentile(detector.score_samples(X), 100 * contamination)
    assert (detector.predict(X) == -1).sum() == 200 * contamination
    assert_array_equal(detector.fit_predict(X), detector.predict(X))


def test_automatic_threshold_lets_normal_rows_pass_and_stops_others() -> None:
    detector = quick().fit(rows(500))
    assert (detector.predict(rows(1000, seed=1)) == 1).mean() > 0.9
    assert (detector.predict(rows(100, seed=2) + 30) == -1).all()


@pytest.mark.parametrize("energy", ["joint", "prior", "elbo"])
def test_leave_one_out_scores_are_those_without_the_row(energy: Any) -> None:
    detector = quick(energy=energy).fit(rows(30))
    left_out = detector._left_out_scores(detector.rows_, detector.rows_)
    kernels, prior = detector.views_[0].kernels, detector.views_[0].prior
    for i in (0, 13, 29):
        others = torch.arange(30) != i
        detector.views_[0].prior = RatioPrior(
            KernelPrior(kernels.exemplars[others], kernels.bandwidth[others]), [], MALA(0.1, 1)
        )
        raw = detector.scaler_.inverse_transform(detector.rows_[i : i + 1].numpy())
        assert detector.score_samples(raw)[0] + math.log(29 / 30) == pytest.approx(
            left_out[i], rel=1e-6
        )
    detector.views_[0].prior = prior


def test_trimming_mends_a_contaminated_fit() -> None:
    areas = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        clump = rng.normal(size=(60, 5)) * 0.3 + 12 * rng.choice([-1, 1], size=(60, 5))
        X = np.concatenate([rows(300, seed=seed), clump[:30]])
        test = np.concatenate([rows(200, seed=seed + 10), clump[30:]])
        label = np.arange(len(test)) >= 200
        areas.append(
            [roc_auc_score(label, -quick(trim=t).fit(X).score_samples(test)) for t in (0.0, 0.2)]
        )
    plain, trimmed = np.mean(areas, 0)
    assert trimmed > plain
    assert trimmed > 0.95


def test_trimming_leaves_out_the_least_likely_part() -> None:
    X = np.concatenate([rows(90), 500 * np.random.default_rng(1).normal(size=(10, 5))])
    kept = quick(trim=0.1).fit(X)
    assert len(kept.rows_) == 90
    assert np.abs(kept.scaler_.inverse_transform(kept.rows_.numpy())).max() < 40
    with pytest.raises(ValueError, match="besides those that trim leaves out"):
        quick(trim=0.2).fit(np.concatenate([np.zeros((90, 4)), rows(10, 4)]))


def test_the_bulk_is_the_likeliest_part_under_kernels_at_itself() -> None:
    """And not under kernels at all rows, among which are those that are left out."""
    normal = torch.randn(140, 2, generator=torch.Generator().manual_seed(0)).double()
    clump = torch.tensor([5.0, 5.0]) + 0.01 * normal[:60]
    x = torch.cat([normal, clump])
    view = fit_linear(torch.nn.Identity(), x, 2)
    kept = bulk([view], x, 0.3)
    assert not kept[140:].any()
    scores = broad_kernels(view.encode(x)[kept])(view.encode(x))
    assert scores[kept].min() >= scores[~kept].max()
    width = broad_kernels(x).bandwidth[0] ** 2
    torch.testing.assert_close(width, x.var(0, correction=0).sum() / 2)


def codes(views: Any, detector: LatentEBMDetector) -> np.ndarray:
    return views[0].encode(detector.rows_).numpy()


def test_warm_start_keeps_standardisation_and_networks() -> None:
    first, later = rows(100), 5 + 2 * rows(100, seed=1)
    detector = quick(warm_start=True).fit(first)
    scaler, views = detector.scaler_, detector.views_
    detector.fit(later)
    assert detector.scaler_ is scaler
    assert_array_equal(*(codes(v, detector) for v in (detector.views_, views)))
    assert_allclose(np.sort(detector.rows_.numpy(), 0), np.sort(scaler.transform(later), 0))
    cold = quick().fit(first)
    old = cold.scaler_
    assert cold.fit(later).scaler_ is not old


@pytest.mark.parametrize("X", [np.ones((9, 5)), np.ones((9, 3)), np.full((9, 5), np.nan)])
@pytest.mark.parametrize("options", [{}, {"warm_start": True}, {"trim": 0.2}])
def test_a_fit_that_fails_leaves_the_last_one(X: np.ndarray, options: dict[str, Any]) -> None:
    detector = quick(**options).fit(rows(60))
    before = detector.score_samples(rows(9, seed=1))
    with pytest.raises(ValueError, match="X"):
        detector.fit(X)
    assert_array_equal(detector.score_samples(rows(9, seed=1)), before)
    blank = quick()
    with pytest.raises(ValueError, match="X"):
        blank.fit(np.ones((9, 3)))
    with pytest.raises(NotFittedError):
        blank.score_samples(X)


def test_a_fit_that_fails_midway_leaves_the_views(monkeypatch: pytest.MonkeyPatch) -> None:
    normal, X = rows(200, 3), np.repeat(rows(1, 3), 200, 0)
    X[180:] = rows(20, 3, seed=2)
    detector = quick(warm_start=True, trim=0.3).fit(normal)
    before = detector.score_samples(normal)
    with pytest.raises(ValueError, match="two different rows"):
        detector.fit(X)
    assert_array_equal(detector.score_samples(normal), before)
    monkeypatch.setattr(LatentEBMDetector, "_threshold", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        detector.partial_fit(X)
    assert_array_equal(detector.score_samples(normal), before)


def test_partial_fit_adds_rows_to_the_kernels() -> None:
    X, new = rows(100), rows(40, seed=1) + 30
    detector = quick(contamination=0.1).partial_fit(X)
    assert_array_equal(detector.score_samples(X), quick(contamination=0.1).fit(X).score_samples(X))
    before, views = detector.score_samples(new), detector.views_
    detector.partial_fit(new)
    assert_array_equal(*(codes(v, detector) for v in (detector.views_, views)))
    assert len(detector.rows_) == len(detector.views_[0].prior.base.exemplars) == 140
    assert (detector.score_samples(new) > before + 10).all()
    assert (detector.predict(np.concatenate([X, new])) == -1).sum() == 14
    few = quick(max_exemplars=50).fit(X).partial_fit(new)
    assert len(few.rows_) == 50


def test_rows_of_every_update_displace_old_ones() -> None:
    detector = quick(max_exemplars=15, random_state=1).fit(rows(15))
    first = detector.rows_
    for new in rows(30, seed=1):
        detector.partial_fit(new[None])
    left = int((detector.rows_[:, None] == first).all(2).any(1).sum())
    share = (15 / 16) ** 30
    assert abs(left - 15 * share) < 4 * (15 * share * (1 - share)) ** 0.5


def test_an_integer_random_state_decides_all_updates() -> None:
    detector, kept = quick(max_exemplars=20), []
    for _ in range(2):
        detector.fit(rows(20)).partial_fit(rows(9, seed=1)).partial_fit(rows(9, seed=2))
        kept.append(detector.rows_)
    assert_array_equal(*kept)


def test_partial_fit_keeps_the_stages(staged: LatentEBMDetector) -> None:
    detector = copy.deepcopy(staged)
    stages, weights = detector.views_[0].prior.stages, detector.views_[0].prior.weights
    detector.partial_fit(gaussian(10, seed=1))
    kept = detector.views_[0].prior.stages.state_dict()
    torch.testing.assert_close(kept, stages.state_dict(), rtol=0, atol=0)
    assert torch.equal(detector.views_[0].prior.weights, weights)
    assert not any(p.requires_grad for p in detector.views_[0].prior.parameters())


def test_explanation_of_a_linear_gaussian_model() -> None:
    # One kernel is a Gaussian N(z0, h^2): the energy is |x - e|^2_A / 2 + constant, A = (1 - W'W)
    # / sigma^2 + W'W / h^2.
    detector = quick(latent_dim=2).fit(rows(60))
    h, z0 = 0.7, torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    detector.views_[0].prior = RatioPrior(KernelPrior(z0, h), [], MALA(0.1, 1))
    X = rows(20, seed=1)
    found = detector.explain(X)
    axes = detector.views_[0].posterior.encoder.layers[0].weight[:2].numpy()
    inside, sigma = axes.T @ axes, float(detector.views_[0].likelihood.log_scale.exp())
    precision = (np.eye(5) - inside) / sigma**2 + inside / h**2
    end = (axes.T @ z0[0].numpy() + detector.views_[0].likelihood.decoder.layers[0].bias.numpy())[
        None
    ]
    gap = detector.scaler_.transform(X) - end
    assert_allclose(found.contribution, 0.5 * gap * (gap @ precision), rtol=1e-9, atol=1e-9)
    assert_allclose(
        found.reconstruction, np.repeat(detector.scaler_.inverse_transform(end), 20, 0), rtol=1e-9
    )
    assert_allclose(found.residual, X - found.reconstruction)


@pytest.mark.parametrize("energy", ["joint", "prior", "reconstruction"])
def test_contributions_sum_to_the_excess_of_energy(staged: LatentEBMDetector, energy: Any) -> None:
    X = gaussian(200, seed=1) + 2 * np.random.default_rng(0).normal(size=(200, 7))
    staged.set_params(energy=energy)
    found = staged.explain(X)
    excess = staged.score_samples(found.reconstruction) - staged.score_samples(X)
    staged.set_params(energy="joint")
    assert np.median(excess) > (0.1 if energy != "reconstruction" else -1e-9)
    assert_allclose(found.contribution.sum(1), excess, rtol=0.05, atol=0.3)


def test_contributions_of_images_sum_to_the_excess_of_energy() -> None:
    X = np.tanh(rows(200, 64))
    detector = quick(**{**IMAGES, "latent_dim": 30}).fit(X[:150])
    found = detector.explain(X[150:])
    excess = detector.score_samples(found.reconstruction) - detector.score_samples(X[150:])
    assert (excess > 0).all()
    assert np.median(np.abs(found.contribution.sum(1) - excess)) < 0.1 * np.median(excess)
    assert all(
        np.abs(X[:150] - row).max(1).min() < 1e-9 for row in found.reconstruction
    )  # training images


def test_explanation_points_at_the_broken_feature() -> None:
    X = np.random.default_rng(0).normal(size=(300, 6))
    broken = X[:6].clip(-1, 1) + 8 * np.eye(6)
    found = quick().fit(X).explain(broken)
    assert_array_equal(found.contribution.argmax(1), np.arange(6))
    assert_array_equal(np.abs(found.residual).argmax(1), np.arange(6))
    assert np.abs(found.reconstruction).max() < 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energy": "total"}, "energy must be one of joint, reconstruction, prior, elbo"),
        ({"contamination": 0.6}, "contamination must be"),
        ({"contamination": 0}, "contamination must be"),
        ({"contamination": "some"}, "contamination must be"),
        ({"trim": 0.5}, "trim must be"),
        ({"latent_dim": 0}, "latent_dim must be an integer >= 1, got 0"),
        ({"latent_dim": 2.0}, "latent_dim must be an integer >= 1, got 2.0"),
        ({"max_stages": -1}, "max_stages must be"),
        ({"max_exemplars": 1}, "max_exemplars must be"),
        ({"max_steps": 0.5}, "max_steps must be an integer >= 1, got 0.5"),
        ({"trim": True}, "trim must be"),
        ({"trim": float("nan")}, "trim must be"),
        ({"encoder": "resnet"}, "encoder must be None or an nn.Module, got 'resnet'"),
        (
            {"encoder": torch.nn.Flatten()},
            "encoder must be None where image_shape is, got a Flatten",
        ),
        ({"random_state": "x"}, "'x' cannot be used to seed"),
        ({"image_shape": (8, 8)}, r"image_shape must be None or \(C, H, W\), H and W at least 8"),
        (
            {"image_shape": (1, 4, 4)},
            r"image_shape must be None or \(C, H, W\), H and W at least 8",
        ),
        (
            {"image_shape": (1, 8, 8), "energy": "reconstruction"},
            'energy must not be "reconstruction" for images',
        ),
        (
            {"energy": "reconstruction", "latent_dim": 5},
            'energy must not be "reconstruction" for 5 columns, of which',
        ),
        ({"image_shape": (1, 8, 8)}, r"image_shape \(1, 8, 8\), got rows of 5 numbers"),
    ],
)
def test_bad_parameters_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentEBMDetector(**options).fit(rows(20))


def test_numbers_without_squares_are_refused() -> None:
    for size, message in (
        (1e-170, "rows that differ by less than 1e-100"),
        (1e101, "magnitude at most 1e"),
    ):
        with pytest.raises(ValueError, match=message):
            LatentEBMDetector().fit(rows(20) * size)
    assert_allclose(
        *(LatentEBMDetector().fit(rows(20) * s).score_samples(rows(5) * s) for s in (1, 1e-150)),
        rtol=1e-6,
    )


def test_images_are_compared_with_their_neighbours() -> None:
    # Two kinds of images, one of them spread ten times as wide: what lies off the narrow kind is
    # the more unusual.
    rng = np.random.default_rng(0)
    centres = np.repeat(np.stack([np.full(64, 0.2), np.full(64, 0.8)]), 60, 0)
    width = np.repeat([0.005, 0.05], 60)[:, None]
    X = centres + width * rng.normal(size=(120, 64))
    detector = quick(**IMAGES).fit(X)
    wide, narrow = 0.8 + 0.06 * rng.normal(size=(20, 64)), 0.2 + 0.06 * rng.normal(size=(20, 64))
    assert detector.score_samples(wide).min() > detector.score_samples(narrow).max()
    assert len(detector.views_) == 2


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (9, 9)])
def test_principal_components_of_tall_and_wide_rows(shape: tuple[int, int]) -> None:
    x = torch.as_tensor(np.random.default_rng(0).normal(size=shape))
    mean, axes, left = principal(x, 4)
    _, singular, expected = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    assert_allclose((axes @ expected[:4].mT).abs().numpy(), np.eye(4), atol=1e-9)
    assert_allclose(mean.numpy(), x.mean(0).numpy())
    assert left == pytest.approx(float(singular[4:].square().sum()) / shape[0] / (shape[1] - 4))


def test_large_images_are_learnt_from_in_a_small_frame() -> None:
    X = np.tanh(rows(40, 48 * 40))
    detector = quick(**{**IMAGES, "image_shape": (1, 48, 40)}).fit(X)
    seen: list[torch.Size] = []
    detector.views_[1].features[1].register_forward_hook(
        lambda module, x, y: seen.append(x[0].shape[1:])
    )
    assert np.isfinite(detector.score_samples(X)).all()
    assert set(seen) == {(1, 32, 32)}


def test_features_of_an_encoder_take_the_place_of_learnt_ones(tmp_path: Path) -> None:
    X = np.tanh(rows(40, 64))
    encoder = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Tanh())
    detector = quick(image_shape=(1, 8, 8), latent_dim=3, encoder=encoder).fit(X)
    assert next(encoder.parameters()).dtype == torch.float32  # the given one is left alone
    features = detector.views_[1].features(detector._standardise(X))
    expected = copy.deepcopy(encoder).double()(detector._standardise(X)).flatten(1)
    assert_allclose(features.numpy(), expected.detach().numpy())
    assert detector.explain(X[:2]).contribution.shape == (2, 64)
    with pytest.raises(
        ValueError, match="encoder must be None in a detector that is saved, got a Sequential"
    ):
        detector.save(tmp_path)


def test_pixels_that_are_always_dark_stand_out_when_lit() -> None:
    X = np.tanh(rows(120, 64))
    X[:, 40:] = -1
    lit = X[:20].copy()
    lit[:, 50:58] = 1
    detector = quick(**{**IMAGES, "latent_dim": 30}).fit(X[20:])
    assert (detector.score_samples(lit) < detector.score_samples(X[:20])).all()


@pytest.mark.parametrize("noise", [0.0, 1e-8, 1e-6])
def test_near_copies_of_images_have_finite_scores(noise: float) -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate(
        [
            rng.random((30, 64)),
            np.repeat(rng.random((3, 64)), 25, 0) + noise * rng.random((75, 64)),
        ]
    )
    assert np.isfinite(quick(**{**IMAGES, "latent_dim": 64}).fit(X).score_samples(X)).all()
