"""Frozen features: scikit-learn's checks, layers and pooling, independence of the batch, and a
cache that is never stale.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from latent_ebm.detection import FrozenFeatures
from latent_ebm.networks import ResidualEncoder


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def rows(num: int, *event: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num, *event))


@parametrize_with_checks(
    [FrozenFeatures(nn.Tanh()), FrozenFeatures(nn.Tanh(), normalize=False, batch_size=3)]
)
@pytest.mark.filterwarnings("ignore:.*SCIPY_ARRAY_API")
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_features_are_the_encoders_normalised_and_leave_it_as_it_was() -> None:
    encoder = ResidualEncoder(3, 2)
    encoder.stem.eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    x = rows(10, 3, 8, 8)
    features = FrozenFeatures(encoder).fit_transform(x)
    plain = FrozenFeatures(encoder, normalize=False).fit_transform(x)
    assert (features.dtype, features.shape) == (np.float64, (10, 8))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(
        features, plain / np.linalg.norm(plain, axis=1, keepdims=True), rtol=1e-12
    )
    assert encoder.stages.training
    assert not encoder.stem.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    with torch.no_grad():
        expected = encoder.eval()(torch.tensor(x).float())
    np.testing.assert_allclose(plain, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_layers_are_hooked_and_maps_and_tokens_pooled() -> None:
    encoder = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(2), nn.Linear(16, 4)).double()
    x = rows(7, 3, 6, 6)
    with torch.no_grad():
        maps = encoder[0](torch.tensor(x))
        tokens = encoder(torch.tensor(x))

    def features(**kwargs: Any) -> np.ndarray:
        return FrozenFeatures(encoder, normalize=False, **kwargs).fit_transform(x)

    np.testing.assert_allclose(features(layer="0"), maps.mean((2, 3)), rtol=1e-10)
    np.testing.assert_allclose(features(layer="0", pooling="max"), maps.amax((2, 3)), rtol=1e-10)
    np.testing.assert_allclose(features(layer="0", pooling="none"), maps.flatten(1), rtol=1e-10)
    np.testing.assert_allclose(features(), tokens.mean(1), rtol=1e-10)
    assert not encoder[0]._forward_hooks


def test_a_row_does_not_depend_on_the_others() -> None:
    transformer, x = FrozenFeatures(ResidualEncoder(3, 4), batch_size=8), rows(19, 3, 16, 16)
    together = transformer.fit_transform(x)
    alone = np.concatenate([transformer.transform(x[i : i + 1]) for i in range(len(x))])
    assert np.array_equal(together, alone)


def test_cached_features_are_bitwise_those_computed_and_follow_weights_settings_and_data(
    tmp_path: Path,
) -> None:
    encoder, x = ResidualEncoder(3, 2), rows(9, 3, 16, 16)
    calls: list[int] = []
    encoder.register_forward_hook(lambda *_: calls.append(1))

    def features(x: np.ndarray = x, **kwargs: Any) -> np.ndarray:
        calls.clear()
        return FrozenFeatures(encoder, batch_size=4, cache_dir=tmp_path, **kwargs).transform(x)

    plain = FrozenFeatures(encoder, batch_size=4).transform(x)
    assert np.array_equal(features(), plain)
    assert len(calls) == 3
    assert np.array_equal(features(), plain)
    assert not calls
    found = [plain]
    changes = (
        {"normalize": False},
        {"layer": "stem"},
        {"layer": "stem", "pooling": "max"},
        {"x": x + 1},
    )
    for change in changes:
        found.append(features(**change))
        assert len(calls) == 3
    assert len({features.tobytes() for features in found}) == 5
    with torch.no_grad():
        encoder.stages[0].body[0][0].weight[0, 0, 0, 0] += 0.1  # one number of a convolution
    assert not np.array_equal(features(), plain)
    assert len(calls) == 3
    changed = features()
    encoder.stem[0][1].running_mean += 0.1  # a buffer
    assert not np.array_equal(features(), changed)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy"}


class Clip(nn.Module):
    """Has a setting that is neither a parameter nor a buffer, and that its text does not show."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(max=self.limit)


def test_the_cache_tells_encoders_apart_by_their_settings(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 40)[:, None] * np.ones(2)  # of which only the last rows are clipped

    def features(limit: float, cache_dir: Path | None) -> np.ndarray:
        settings: dict[str, Any] = {"normalize": False, "batch_size": 8, "cache_dir": cache_dir}
        return FrozenFeatures(Clip(limit), **settings).transform(x)

    for limit in (0.9, 0.8, 0.9):
        assert np.array_equal(features(limit, tmp_path), features(limit, None))
    assert len(list(tmp_path.iterdir())) == 2


def test_the_cache_may_be_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for _ in range(2):
        FrozenFeatures(nn.Tanh(), cache_dir="~/cache").transform(rows(4, 3))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="features must be finite: 2 of 5 rows"):
        FrozenFeatures(Overflow(), cache_dir=tmp_path).transform(rows(5, 3))
    assert not list(tmp_path.iterdir())


class Overflow(nn.Module):
    """Infinite at the first two rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = torch.ones(len(x), 1)
        scale[:2] = torch.inf
        return x * scale


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("transformer", "message"),
    [
        (
            FrozenFeatures(nn.Sequential(nn.Tanh(), nn.ReLU()), layer="2"),
            "layer must be one of 0, 1, got '2'",
        ),
        (
            FrozenFeatures(nn.Tanh(), pooling="mean"),
            "pooling must be one of avg, max, none, got 'mean'",
        ),  # pyright: ignore
        (FrozenFeatures(nn.Tanh(), batch_size=0), "batch_size must be an integer >= 1, got 0"),
        (
            FrozenFeatures(Pair()),
            "layer must name a module that returns a tensor, got tuple from None",
        ),
    ],
)
def test_refusals(transformer: FrozenFeatures, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transformer.fit(rows(4, 3))


def test_a_detector_in_its_feature_space_is_a_pipeline() -> None:
    """Rows on one ray from the origin are alike once normalised, and a row on another ray is
    not.
    """
    train = np.linspace(1, 9, 40)[:, None] * [3.0, 4.0] + 0.01 * rows(40, 2)
    pipeline = make_pipeline(FrozenFeatures(nn.Identity()), LocalOutlierFactor(novelty=True)).fit(
        train
    )
    assert pipeline.predict([[30.0, 40.0], [4.0, 3.0]]).tolist() == [1, -1]
