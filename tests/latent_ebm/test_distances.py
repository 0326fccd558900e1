"""Distances of distributions in features: closed forms of Gaussians, plain loops, torchmetrics."""

import math

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from latent_ebm.evaluation import cmmd, frechet


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(num: int, dim: int, seed: int) -> Tensor:
    """Rows whose mean is exactly 0 and whose covariance is exactly the identity."""
    rows = normal(num, dim, seed=seed)
    return torch.linalg.qr(rows - rows.mean(0))[0] * math.sqrt(num - 1)


class Channels(nn.Module):
    """Means of the channels: features of pictures that are known exactly."""

    num_features = 3

    def forward(self, x: Tensor) -> Tensor:
        return x.double().mean((2, 3))


def as_pictures(rows: Tensor) -> Tensor:
    """Pictures (n, 3, 2, 2) whose channels have the means ``rows`` (n, 3)."""
    return rows[:, :, None, None].expand(-1, -1, 2, 2)


def test_frechet_is_that_of_two_gaussians_of_the_features() -> None:
    """More pictures than one block, of Gaussians with diagonal covariances."""
    scale, other = torch.tensor([1.0, 2, 0.5]).double(), torch.tensor([3.0, 0.2, 0.5]).double()
    shift = torch.tensor([1.0, 0, -2]).double()
    real, fake = whitened(700, 3, 1) * scale, whitened(40, 3, 2) * other + shift
    expected = float(shift.square().sum() + (scale - other).square().sum())
    found = frechet(as_pictures(real), as_pictures(fake), Channels())
    assert found == pytest.approx(expected, rel=1e-10)


def test_frechet_is_that_of_torchmetrics() -> None:
    x, y = ((normal(60, 3, 4, 4, seed=seed) * 40 + 128).clamp(0, 255).byte() for seed in (1, 2))
    peer = FrechetInceptionDistance(feature=Channels(), input_img_size=(3, 4, 4))
    peer.set_dtype(torch.float64)
    peer.update(x, real=True)
    peer.update(y, real=False)
    assert frechet(x, y, Channels()) == pytest.approx(float(peer.compute()), rel=1e-4)


def loop(a: Tensor, b: Tensor) -> float:
    """The unbiased squared MMD, pair by pair."""

    def kernel(x: Tensor, y: Tensor) -> float:
        return math.exp(-float((x - y).square().sum()) / (2 * 10**2))

    within = [
        sum(kernel(rows[i], rows[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        for rows in (a, b)
        for n in [len(rows)]
    ]
    between = sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))
    return sum(within) - 2 * between


def test_cmmd_is_a_thousand_times_the_double_loop() -> None:
    a, b = 5 * normal(6, 3, seed=1), 8 * normal(9, 3, seed=2)
    found = cmmd(as_pictures(a), as_pictures(b), Channels())
    assert found == pytest.approx(1000 * loop(a, b), rel=1e-9)


def expected(scale: float, other: float, shift: float) -> float:
    """CMMD of N(0, scale^2 I) and N(shift, other^2 I) in three dimensions."""

    def mean_kernel(variance: float, distance: float) -> float:
        width = 100 + variance
        return (100 / width) ** 1.5 * math.exp(-distance / (2 * width))

    same = mean_kernel(2 * scale**2, 0) + mean_kernel(2 * other**2, 0)
    return 1000 * (same - 2 * mean_kernel(scale**2 + other**2, 3 * shift**2))


@pytest.mark.parametrize(("other", "shift"), [(6.0, 0.0), (6.0, 2.0), (9.0, 0.0)])
def test_cmmd_of_gaussians_is_unbiased(other: float, shift: float) -> None:
    """Equal, shifted and wider ones. With few rows the biased estimate is off by ten errors."""
    values = torch.tensor(
        [
            cmmd(
                as_pictures(6 * normal(20, 3, seed=2 * i)),
                as_pictures(other * normal(15, 3, seed=2 * i + 1) + shift),
                Channels(),
            )
            for i in range(300)
        ]
    )
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - expected(6, other, shift)) < 4 * error
    assert shift or other > 6 or values.min() < 0


def test_cmmd_of_unit_vectors_is_nearly_the_distance_of_means() -> None:
    a, b = (torch.nn.functional.normalize(normal(400, 8, seed=s) + s - 1) for s in (1, 2))
    means = float((a.mean(0) - b.mean(0)).square().sum())
    assert cmmd(a, b, lambda x: x) == pytest.approx(10 * means, rel=0.05)


def test_odd_input_is_refused() -> None:
    rows = normal(9, 4)
    for real, fake, name in ((rows[:4], rows, "real"), (rows, rows[:4], "fake")):
        message = f"{name} must have more than 4 rows for a Frechet distance in 4 features, got 4"
        with pytest.raises(ValueError, match=message):
            frechet(real, fake, lambda x: x)
    with pytest.raises(ValueError, match=r"a must be a real matrix \(n, d\)"):
        frechet(rows, rows, lambda x: x[:, 0])
    with pytest.raises(ValueError, match="b must have at least 2 rows, got 1"):
        cmmd(rows, rows[:1], lambda x: x)
