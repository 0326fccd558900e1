"""Every metric against a closed form: Gaussians for the distances, exchangeability for the
neighbour counts.
"""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from latent_ebm.metrics import (
    auroc_auprc,
    frechet_distance,
    grid_kl,
    knn_kl,
    mmd,
    prdc,
    reconstruction_mse,
)
from latent_ebm.networks.classifier import FeatureClassifier, fit_classifier


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(num: int, dim: int, seed: int = 0) -> Tensor:
    """Rows whose sample mean is exactly zero and whose sample covariance is exactly the
    identity.
    """
    centred = normal(num, dim, seed=seed)
    centred = centred - centred.mean(0)
    q, _ = torch.linalg.qr(centred)
    return q * math.sqrt(num - 1)


def z_score(values: list[float], expected: float) -> float:
    sample = torch.tensor(values, dtype=torch.float64)
    return float((sample.mean() - expected) / (sample.std() / math.sqrt(len(values))))


class TestFrechet:
    def test_gaussians_with_known_moments(self) -> None:
        scale_a = torch.tensor([[2.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
        scale_b = torch.tensor([[1.0, 0.0], [-0.8, 0.3]], dtype=torch.float64)
        shift = torch.tensor([3.0, -1.0], dtype=torch.float64)
        cov_a, cov_b = scale_a @ scale_a.mT, scale_b @ scale_b.mT
        # In two dimensions tr (A B)^1/2 = sqrt(tr AB + 2 sqrt(det AB)).
        product = cov_a @ cov_b
        cross = (product.trace() + 2 * product.det().sqrt()).sqrt()
        expected = shift.square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
        a, b = whitened(500, 2, seed=1) @ scale_a.mT, whitened(700, 2, seed=2) @ scale_b.mT + shift
        assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-10)
        assert frechet_distance(b, a) == pytest.approx(float(expected), rel=1e-10)

    def test_diagonal_gaussians_in_many_dimensions(self) -> None:
        scale_a, scale_b = (
            torch.linspace(0.1, 3, 40).double(),
            torch.linspace(2, 1e-3, 40).double(),
        )
        expected = float((scale_a - scale_b).square().sum())
        value = frechet_distance(
            whitened(300, 40, seed=1) * scale_a, whitened(400, 40, seed=2) * scale_b
        )
        assert value == pytest.approx(expected, rel=1e-10)

    @pytest.mark.parametrize(("num", "dim"), [(200, 8), (20, 50)])
    def test_identical_sets_are_at_zero_also_with_singular_covariance(
        self, num: int, dim: int
    ) -> None:
        a = 10 * normal(num, dim) + 5
        assert frechet_distance(a, a.clone()) == pytest.approx(0.0, abs=1e-10)

    def test_singular_covariance_shifted(self) -> None:
        a = normal(20, 50)
        assert frechet_distance(a, a + 2.0) == pytest.approx(4.0 * 50, rel=1e-10)

    def test_float32_features_are_computed_in_float64(self) -> None:
        a = (normal(300, 4) + 1e3).float()
        assert frechet_distance(a, a + 1.0) == pytest.approx(4.0, abs=1e-3)


class TestPRDC:
    def test_identical_sets(self) -> None:
        a = normal(1500, 3)  # more than one block of rows
        # Every closed ball holds its k neighbours and its centre.
        assert prdc(a, a.clone(), k=4) == {
            "precision": 1.0,
            "recall": 1.0,
            "density": 5 / 4,
            "coverage": 1.0,
        }

    def test_disjoint_sets(self) -> None:
        assert set(prdc(normal(100, 2), normal(80, 2) + 100).values()) == {0.0}

    def test_equal_laws_match_their_expectations(self) -> None:
        n, m, k = 120, 60, 3
        values = [
            prdc(normal(n, 2, seed=2 * i), normal(m, 2, seed=2 * i + 1), k=k) for i in range(200)
        ]
        coverage = 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
        assert abs(z_score([v["coverage"] for v in values], coverage)) < 4
        # A fake falls into a given real ball with probability k / n over exchangeable points.
        assert abs(z_score([v["density"] for v in values], 1.0)) < 4

    def test_dropped_mode_costs_recall_and_coverage_but_not_precision(self) -> None:
        mode = torch.tensor([20.0, 0.0], dtype=torch.float64)
        real = torch.cat([normal(400, 2), normal(400, 2, seed=1) + mode])
        result = prdc(real, normal(800, 2, seed=2))
        assert result["precision"] > 0.95
        assert 0.45 < result["recall"] <= 0.5
        assert 0.45 < result["coverage"] <= 0.5
        swapped = prdc(normal(800, 2, seed=2), real)
        assert 0.45 < swapped["precision"] <= 0.51
        assert swapped["recall"] > 0.95

    def test_outlier_inflates_precision_but_not_density(self) -> None:
        real = torch.cat([normal(200, 2), torch.full((1, 2), 50.0, dtype=torch.float64)])
        fake = normal(200, 2, seed=1) + 25.0
        result = prdc(real, fake)
        assert result["precision"] == 1.0
        assert result["density"] == pytest.approx(0.2, abs=0.01)


class TestMMD:
    def expected(self, shift: Tensor, bandwidths: list[float]) -> float:
        """Squared MMD of N(0, I) and N(shift, I)."""
        dim, distance = len(shift), float(shift.square().sum())
        return sum(
            2 * (s**2 / (s**2 + 2)) ** (dim / 2) * (1 - math.exp(-distance / (2 * (s**2 + 2))))
            for s in bandwidths
        )

    @pytest.mark.parametrize("offset", [0.0, 0.4])
    def test_unbiased_for_gaussians(self, offset: float) -> None:
        shift, bandwidths = torch.full((3,), offset, dtype=torch.float64), [0.5, 1.0, 3.0]
        values = [
            mmd(normal(30, 3, seed=2 * i), normal(40, 3, seed=2 * i + 1) + shift, bandwidths)
            for i in range(400)
        ]
        assert abs(z_score(values, self.expected(shift, bandwidths))) < 4

    def test_median_bandwidths_keep_the_null_centred_and_see_a_difference(self) -> None:
        null = [mmd(normal(50, 2, seed=2 * i), normal(50, 2, seed=2 * i + 1)) for i in range(300)]
        assert abs(z_score(null, 0.0)) < 4
        assert min(null) < 0
        assert mmd(normal(50, 2), 2.0 * normal(50, 2, seed=1)) > 3 * torch.tensor(null).std()

    def test_median_bandwidths_make_it_scale_free_and_blocks_agree(self) -> None:
        a, b = normal(1500, 2), normal(1200, 2, seed=1) + 0.5
        assert mmd(a, b) == pytest.approx(mmd(1e3 * a, 1e3 * b), rel=1e-9)
        assert mmd(a, b, [1.0]) == pytest.approx(mmd(a.flip(0), b.flip(0), [1.0]), rel=1e-9)


class TestKL:
    p = MultivariateNormal(
        torch.tensor([0.5, -0.3]), covariance_matrix=torch.tensor([[1.0, 0.3], [0.3, 0.6]])
    )
    q = MultivariateNormal(
        torch.zeros(2), covariance_matrix=torch.tensor([[1.5, -0.2], [-0.2, 1.2]])
    )

    def draws(self, law: MultivariateNormal, num: int, seed: int) -> Tensor:
        return law.loc.double() + normal(num, 2, seed=seed) @ law.scale_tril.double().mT

    @pytest.mark.parametrize(("k", "tolerance"), [(1, 0.08), (5, 0.04)])
    def test_knn_on_gaussians(self, k: int, tolerance: float) -> None:
        expected = float(kl_divergence(self.p, self.q))
        values = [
            knn_kl(
                self.draws(self.p, 4000, seed=2 * i), self.draws(self.q, 3000, seed=2 * i + 1), k=k
            )
            for i in range(4)
        ]
        assert sum(values) / len(values) == pytest.approx(expected, abs=tolerance)

    def test_knn_approaches_from_below_when_p_has_the_heavier_tails(self) -> None:
        expected = float(kl_divergence(self.q, self.p))
        few, many = (
            knn_kl(self.draws(self.q, num, seed=1), self.draws(self.p, num, seed=2), k=1)
            for num in (500, 50000)
        )
        assert few < many < expected
        assert many == pytest.approx(expected, abs=0.2)

    def test_knn_does_not_depend_on_units(self) -> None:
        p, q = self.draws(self.p, 300, seed=1), self.draws(self.q, 400, seed=2)
        assert knn_kl(1e3 * p, 1e3 * q) == pytest.approx(knn_kl(p, q), rel=1e-9)

    def test_knn_on_equal_laws_is_centred(self) -> None:
        values = [
            knn_kl(normal(300, 2, seed=2 * i), normal(500, 2, seed=2 * i + 1)) for i in range(60)
        ]
        assert abs(sum(values) / len(values)) < 0.02

    def test_grid_on_gaussians(self) -> None:
        unnormalised = lambda z: self.p.log_prob(z) + 7.0  # noqa: E731
        expected = float(kl_divergence(self.p, self.q))
        assert grid_kl(unnormalised, self.q.log_prob, [-9.0, -8.0], [9.0, 8.0]) == pytest.approx(
            expected, rel=1e-5
        )
        assert grid_kl(self.p.log_prob, self.p.log_prob, -8, 8, num=50) == pytest.approx(
            0.0, abs=1e-12
        )

    def test_grid_on_supports(self) -> None:
        flat = lambda z: torch.zeros(len(z))  # noqa: E731
        half = lambda z: torch.where(z[:, 0] > 0, 0.0, -math.inf)  # noqa: E731
        assert grid_kl(half, flat, -1, 1, num=20) == pytest.approx(math.log(2), rel=1e-9)
        assert grid_kl(flat, half, -1, 1, num=20) == math.inf

    def test_grid_follows_the_dtype_of_the_corners(self) -> None:
        seen = set()

        def log_prob(z: Tensor) -> Tensor:
            seen.add(z.dtype)
            return -z.square().sum(-1)

        grid_kl(
            log_prob,
            log_prob,
            torch.tensor(-3.0, dtype=torch.float64),
            torch.tensor(3.0, dtype=torch.float64),
        )
        grid_kl(log_prob, log_prob, -3, 3)
        assert seen == {torch.float64, torch.float32}


class TestScores:
    def test_mse_is_per_pixel(self) -> None:
        x = torch.zeros(4, 1, 3, 3)
        assert reconstruction_mse(x, x + 0.5) == 0.25
        assert (
            reconstruction_mse(x, torch.ones_like(x).index_fill(0, torch.tensor([0]), 3.0)) == 3.0
        )

    def test_auroc_perfect_reversed_and_constant(self) -> None:
        label = torch.tensor([0, 0, 0, 1])
        score = torch.tensor([0.1, 0.3, 0.2, 0.9])
        assert auroc_auprc(score, label) == {"auroc": 1.0, "auprc": 1.0, "prevalence": 0.25}
        assert auroc_auprc(-score, label.bool()) == {
            "auroc": 0.0,
            "auprc": 0.25,
            "prevalence": 0.25,
        }
        assert auroc_auprc(torch.zeros(4), label) == {
            "auroc": 0.5,
            "auprc": 0.25,
            "prevalence": 0.25,
        }

    def test_chance(self) -> None:
        label = (torch.arange(20000) % 10 == 0).long()
        result = auroc_auprc(normal(20000), label)
        assert result["auroc"] == pytest.approx(0.5, abs=0.03)
        assert result["auprc"] == pytest.approx(0.1, abs=0.015)

    def test_auroc_of_two_gaussians(self) -> None:
        label = (torch.arange(20000) % 2).long()
        expected = 0.5 * (1 + math.erf(1.0 / 2))  # Phi(shift / sqrt 2) at shift 1
        assert auroc_auprc(normal(20000) + label, label)["auroc"] == pytest.approx(
            expected, abs=0.015
        )


A, NAN = torch.zeros(10, 2), torch.full((10, 2), math.nan)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance(A[:1], A), "a must have at least 2 rows, got 1"),
        (
            lambda: frechet_distance(A, torch.zeros(10, 3)),
            "a and b must have the same width, got 2 and 3",
        ),
        (lambda: frechet_distance(A, NAN), "b must be finite, got 20"),
        (lambda: prdc(A, A[:5], k=5), "fake must have at least 6 rows, got 5"),
        (lambda: prdc(A, A, k=0), "k must be an integer >= 1, got 0"),
        (lambda: prdc(A[0], A), "real must be a real matrix"),
        (lambda: mmd(A, A), "bandwidths must be positive"),
        (lambda: mmd(A, A, [1.0, -2.0]), "bandwidths must be positive"),
        (lambda: mmd(A, A, []), "bandwidths must be positive"),
        (lambda: knn_kl(A, A), "p_draws must not hold"),
        (lambda: knn_kl(normal(10, 2), normal(5, 2)), "q_draws must have at least 6 rows, got 5"),
        (lambda: grid_kl(lambda z: z, lambda z: z, -1, 1), "p_log_prob must map"),
        (
            lambda: grid_kl(lambda z: z[:, 0], lambda z: z[:, 0] * math.nan, -1, 1),
            "q_log_prob must be below",
        ),
        (
            lambda: grid_kl(lambda z: z[:, 0], lambda z: z[:, 0], 1, -1),
            "upper must be finite and above lower",
        ),
        (
            lambda: grid_kl(lambda z: z[:, 0], lambda z: z[:, 0], -1, 1, num=1),
            "num must be an integer >= 2, got 1",
        ),
        (lambda: reconstruction_mse(A, A[:5]), "x_hat must have the shape"),
        (lambda: reconstruction_mse(NAN, A), "x must be finite"),
        (lambda: auroc_auprc(A[:, 0], torch.ones(10)), "is_anomaly must hold both classes"),
        (lambda: auroc_auprc(A[:, 0], torch.arange(10)), "is_anomaly must hold both classes"),
        (
            lambda: auroc_auprc(NAN[:, 0], torch.arange(10) % 2),
            "score_anomaly must be finite, got 10",
        ),
        (
            lambda: auroc_auprc(A[:, 0], torch.arange(4) % 2),
            "score_anomaly and is_anomaly must both have shape",
        ),
    ],
)
def test_invalid_input_names_argument_rule_and_value(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


class TestFeatureClassifier:
    @pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 20), (3, 64, 64)])
    def test_shapes(self, shape: tuple[int, int, int]) -> None:
        network, x = FeatureClassifier(shape, num_classes=7, channels=4), torch.zeros(2, *shape)
        assert network.features(x).shape == (2, network.feature_dim)
        assert network(x).shape == (2, 7)

    def test_learns_digits_and_its_features_see_noise(self) -> None:
        pixels, target = load_digits(return_X_y=True)
        x = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        label = torch.tensor(target, dtype=torch.int64)
        torch.manual_seed(0)
        network = FeatureClassifier((1, 8, 8), num_classes=10)
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(x), generator=generator)
        train, test = order[:1400], order[1400:]
        losses = fit_classifier(
            network,
            x[train],
            label[train],
            epochs=12,
            batch_size=64,
            progress=False,
            generator=generator,
        )
        assert losses[-1] < 0.1 < losses[0]
        assert float((network(x[test]).argmax(1) == label[test]).double().mean()) > 0.95
        real, held_out, noise = (
            network.features(v)
            for v in (x[train], x[test], torch.rand(397, 1, 8, 8, generator=generator))
        )
        assert frechet_distance(real, noise) > 10 * frechet_distance(real, held_out)

    def test_reproducible_under_the_generator(self) -> None:
        x, label = normal(50, 1, 8, 8).float(), torch.arange(50) % 3
        runs = []
        for seed in (0, 0, 1):
            torch.manual_seed(3)
            network = FeatureClassifier((1, 8, 8), num_classes=3, channels=4)
            generator = torch.Generator().manual_seed(seed)
            runs.append(
                fit_classifier(
                    network, x, label, batch_size=16, progress=False, generator=generator
                )
            )
        assert runs[0] == runs[1] != runs[2]

    def test_rejects_invalid_input(self) -> None:
        with pytest.raises(ValueError, match="shape must be"):
            FeatureClassifier((1, 4, 4), num_classes=2)
        with pytest.raises(ValueError, match="num_classes must be an integer >= 2, got 1"):
            FeatureClassifier((1, 8, 8), num_classes=1)
        network, x = (
            FeatureClassifier((1, 8, 8), num_classes=3, channels=2),
            torch.zeros(4, 1, 8, 8),
        )
        with pytest.raises(ValueError, match=r"label must lie in 0\.\.2, got 0\.\.3"):
            fit_classifier(network, x, torch.arange(4), progress=False)
        with pytest.raises(ValueError, match="x must have shape"):
            fit_classifier(network, x[..., 1:], torch.zeros(4, dtype=torch.int64), progress=False)
        with pytest.raises(ValueError, match="epochs must be an integer >= 1, got 0"):
            fit_classifier(network, x, torch.zeros(4, dtype=torch.int64), epochs=0, progress=False)
