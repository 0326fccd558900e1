"""Likelihood bounds around exact values; evaluation figures that mean what they say; pictures
pixel by pixel.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor

from latent_ebm import (
    EnergyPrior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    MCMCPosterior,
    RatioPrior,
)
from latent_ebm.evaluation import evaluate, evaluation_figures, nll_bracket, prior_log_z
from latent_ebm.evaluation.batches import decode, infer
from latent_ebm.evaluation.held_out import crosses, held_out_nll, sample_quality
from latent_ebm.evaluation.prior_chains import (
    chain_diagnostics,
    lengthened,
    long_run,
    long_run_draws,
    tilt_means,
)
from latent_ebm.networks import MLP, ConvDecoder, EnergyMLP
from latent_ebm.plots import image_grid, save_figure, save_grid
from latent_ebm.writing import atomic_path
from samplers import HMC, MALA, Annealed, GradientFlow, Langevin
from tests.latent_ebm.linear_gaussian import LinearGaussian

UNIT = HMC(0.4, 4, 1)
INFERENCE = MCMCPosterior(Langevin(0.01, 10))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def wavy(factor: float = 3.0) -> EnergyMLP:
    network = EnergyMLP(2, (16, 16), "tanh")
    for layer in network.layers:
        layer.weight.data *= factor
    return network


def energy_model() -> LatentModel:
    return LatentModel(
        EnergyPrior(wavy(), GaussianPrior(2), MALA(0.1, 60)),
        GaussianLikelihood(MLP(2, 3, (8,), "tanh"), 0.4),
    )


def ratio_model() -> LatentModel:
    prior = RatioPrior(GaussianPrior(2), [], MALA(0.1, 60))
    prior.append(wavy(2.0), weight=0.8)
    prior.append(wavy(2.0))
    return LatentModel(prior, GaussianLikelihood(MLP(2, 3, (8,), "tanh"), 0.4))


def image_model() -> LatentModel:
    prior = EnergyPrior(EnergyMLP(2, (8,)), GaussianPrior(2), Langevin(0.05, 5))
    return LatentModel(prior, GaussianLikelihood(ConvDecoder(2, (1, 8, 8), channels=2), 0.5))


def grid_nll(model: LatentModel, x: Tensor) -> Tensor:
    axis = torch.linspace(-6, 6, 250, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_prior = model.prior(grid).log_softmax(0)
        conditional = model.likelihood(grid)
        return -torch.stack(
            [
                (log_prior + conditional.log_prob(row.expand(len(grid), -1))).logsumexp(0)
                for row in x
            ]
        )


class TestBracket:
    def test_holds_the_exact_value_of_a_linear_gaussian_model(self) -> None:
        model = LinearGaussian().requires_grad_(False)
        x = torch.cat([model.marginal().sample((6,)), torch.tensor([[4.0, -4.0, 3.0]]).double()])
        exact, log_z = -model.marginal().log_prob(x), model.log_z.item()
        lower, upper = nll_bracket(
            model, x, UNIT, num_chains=64, num_rungs=60, log_z=(log_z, log_z)
        )
        assert (lower.shape, upper.shape) == ((7,), (7,))
        assert (upper - lower).abs().max() < 0.05
        assert (lower - 0.02 < exact).all()
        assert (exact < upper + 0.02).all()
        assert lower.mean() - 0.01 < exact.mean() < upper.mean() + 0.01

    @pytest.mark.parametrize("make", [energy_model, ratio_model])
    def test_holds_the_integral_on_a_grid(self, make) -> None:
        model = make().double().requires_grad_(False)
        x = model.likelihood(model.prior.sample(5)).sample()
        found = prior_log_z(model.prior, HMC(0.5, 3, 1), num=300, num_rungs=20)
        log_z = found.lower, found.upper
        lower, upper = nll_bracket(model, x, UNIT, num_chains=64, num_rungs=40, log_z=log_z)
        exact = grid_nll(model, x)
        assert (lower - 0.05 < exact).all()
        assert (exact < upper + 0.05).all()
        assert lower.mean() - 0.02 < exact.mean() < upper.mean() + 0.02
        assert (upper - lower).abs().max() < 0.1

    def test_steps_adapt_to_posteriors_hundreds_of_times_narrower_than_the_prior(self) -> None:
        model = LinearGaussian().requires_grad_(False)
        model.likelihood.log_scale.fill_(math.log(0.003))
        model.decoder.weight.mul_(torch.tensor([1.0, 0.05]))  # and of unequal widths
        x, log_z = model.marginal().sample((4,)), model.log_z.item()
        lower, upper = nll_bracket(
            model, x, UNIT, num_chains=16, num_rungs=40, log_z=(log_z, log_z)
        )
        exact = -model.marginal().log_prob(x)
        assert (lower - 0.1 < exact).all()
        assert (exact < upper + 0.1).all()
        assert (upper - lower).abs().max() < 0.2

    def test_one_rung_is_plain_importance_sampling_from_q_itself(self) -> None:
        """No annealing that would make up for draws of a wrong distribution."""
        model = LinearGaussian().requires_grad_(False)
        x, log_z = model.marginal().sample((1,)), model.log_z.item()
        lower, upper = nll_bracket(
            model, x, UNIT, num_chains=5000, num_rounds=12, num_rungs=1, log_z=(log_z, log_z)
        )
        exact = -model.marginal().log_prob(x)
        torch.testing.assert_close(lower, exact, rtol=0, atol=0.03)
        torch.testing.assert_close(upper, exact, rtol=0, atol=0.03)

    def test_is_reproducible_and_shifts_with_log_z(self) -> None:
        model, x = LinearGaussian(), torch.zeros(2, 3).double()

        def bounds(log_z: tuple[float, float]) -> tuple[Tensor, Tensor]:
            generator = torch.Generator().manual_seed(5)
            return nll_bracket(
                model,
                x,
                UNIT,
                num_chains=4,
                num_rounds=5,
                num_rungs=5,
                log_z=log_z,
                generator=generator,
            )

        (a, b), (c, d) = bounds((0.0, 0.0)), bounds((1.0, 3.0))
        torch.testing.assert_close(c, a + 1)
        torch.testing.assert_close(d, b + 3)
        assert all(p.grad is None for p in model.parameters())

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ({"sampler": Langevin(0.1, 1)}, "sampler must be HMC or MALA"),
            ({"num_chains": 1}, "num_chains must be an integer >= 2, got 1"),
            ({"num_rounds": 1}, "num_rounds must be an integer >= 2, got 1"),
            ({"num_rungs": 0}, "num_rungs must be an integer >= 1, got 0"),
            ({"log_z": (1.0, 0.0)}, r"log_z must be \(lower, upper\)"),
            ({"log_z": (math.nan, 0.0)}, r"log_z must be \(lower, upper\)"),
        ],
    )
    def test_refusals(self, argument: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            nll_bracket(
                LinearGaussian(), torch.zeros(1, 3).double(), **{"sampler": UNIT, **argument}
            )


class TestLongRun:
    def test_continues_the_same_chains(self) -> None:
        prior = EnergyPrior(wavy(), GaussianPrior(2), Langevin(0.01, 3, temperature=0.0))
        generator = torch.Generator().manual_seed(1)
        draws = long_run_draws(prior, 5, multiples=(1, 2, 10), generator=generator)
        start = prior.base.sample(5, generator=torch.Generator().manual_seed(1))
        for multiple, z in draws.items():
            expected = Langevin(0.01, 3 * multiple, temperature=0.0).sample(prior, start)
            torch.testing.assert_close(z, expected, rtol=0, atol=1e-5)

    def test_starts_where_the_last_stage_does(self) -> None:
        prior = ratio_model().prior
        draws = long_run_draws(
            prior, 5, multiples=(1,), generator=torch.Generator().manual_seed(1)
        )
        assert torch.equal(draws[1], prior.sample(5, generator=torch.Generator().manual_seed(1)))

    def test_sees_a_chain_that_has_not_arrived(self) -> None:
        """Towards ``N(3, 1)`` by steps of .01: after 20 steps a fifth of the way, after 1,200 all
        of it.
        """
        energy = EnergyMLP(1, ())
        energy.layers[-1].weight.data.fill_(-3.0)
        energy.layers[-1].bias.data.zero_()
        model = LatentModel(
            EnergyPrior(energy, GaussianPrior(1), Langevin(0.01, 20)),
            GaussianLikelihood(torch.nn.Linear(1, 2), 0.1),
        )
        decoder = model.likelihood.decoder
        test = decoder(3 + torch.randn(4000, 1)).detach()
        figures = long_run(model, test, lambda x: x, num=4000)
        way = {multiple: 1 - (1 - 0.01) ** (20 * multiple) for multiple in (1, 10, 60)}
        scale = decoder.weight.square().sum().item()
        for multiple, share in way.items():
            assert figures[f"energy_{multiple}x"] == pytest.approx(-9 * share, abs=0.2)
            assert figures[f"frechet_{multiple}x"] == pytest.approx(
                scale * (3 * (1 - share)) ** 2, rel=0.1, abs=0.02
            )
        assert figures["norm_60x"] == pytest.approx(3, abs=0.1)
        assert set(long_run(model, test, None, multiples=(1,), num=5)) == {"energy_1x", "norm_1x"}

    def test_a_wrapped_sampler_is_lengthened_inside(self) -> None:
        assert lengthened(MALA(0.1, 3), 4) == MALA(0.1, 12)
        assert lengthened(Annealed(MALA(0.1, 3), (0.5, 1.0)), 4) == Annealed(
            MALA(0.1, 12), (0.5, 1.0)
        )

    def test_a_long_run_of_a_flow_follows_it_for_longer(self) -> None:
        """Of a Gaussian, the flow halves the deviation in each time log 2."""
        flow = GradientFlow(math.log(2), "rk4", 10)
        prior = EnergyPrior(wavy(0), GaussianPrior(2), flow)
        draws = long_run_draws(prior, 500, multiples=(1, 3))
        assert (draws[1].std() / draws[3].std()).item() == pytest.approx(4, rel=1e-3)

    @pytest.mark.parametrize("multiples", [(), (0, 1), (10, 1), (1, 1)])
    def test_multiples_must_increase(self, multiples: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="multiples must increase from at least 1, got"):
            long_run_draws(energy_model().prior, 5, multiples=multiples)  # pyright: ignore[reportArgumentType]


class TestFigures:
    def test_diagnostics_tell_a_mixed_chain_from_a_short_one(self) -> None:
        mixed = chain_diagnostics(
            EnergyPrior(wavy(0.5), GaussianPrior(2), MALA(0.4, 200)), num_chains=20
        )
        short = chain_diagnostics(
            EnergyPrior(wavy(0.5), GaussianPrior(2), Langevin(1e-4, 5)), num_chains=20
        )
        assert mixed["rhat"] < 1.05
        assert short["rhat"] > 2
        assert short["acceptance"] == 1
        assert 0.5 < mixed["acceptance"] < 1
        assert 0.05 < mixed["ess_per_draw"] < 1
        assert short["ess_per_draw"] < 0.3

    def test_of_an_annealed_chain_the_last_rung_is_looked_at(self) -> None:
        annealed = Annealed(HMC(0.5, 4, 100), (0.1, 0.3, 1.0))
        prior = EnergyPrior(wavy(0), GaussianPrior(2), annealed)
        assert chain_diagnostics(prior, num_chains=20)["rhat"] < 1.05

    def test_tilt_means_are_the_mean_energies(self) -> None:
        model, z = LinearGaussian(), torch.randn(9, 2).double()
        expected = (z @ model.energy.weight[0] + model.energy.bias).mean().item()
        assert tilt_means(model.prior, {"test": z}) == {"energy_test": pytest.approx(expected)}

    def test_batches_do_not_show(self) -> None:
        model, x = LinearGaussian(), torch.randn(1203, 3).double()
        climb = MCMCPosterior(Langevin(0.1, 3, temperature=0.0), start="zero")
        z = infer(model, climb, x)
        torch.testing.assert_close(z, climb.sample(model, x))
        torch.testing.assert_close(decode(model, z), model.decoder(z).detach())

    def test_sample_quality_of_equal_and_of_distant_laws(self) -> None:
        real = torch.randn(400, 3)
        near, far = (
            sample_quality(real, torch.randn(400, 3)),
            sample_quality(real, torch.randn(400, 3) + 9),
        )
        assert near["frechet"] < 0.2
        assert far["frechet"] == pytest.approx(243, rel=0.05)
        assert near["precision"] > 0.8
        assert far["precision"] == far["recall"] == far["coverage"] == 0

    def test_evaluate_of_vectors_has_every_figure(self) -> None:
        model = energy_model()
        x = model.likelihood(model.prior.sample(60)).sample()
        figures = evaluate(
            model,
            INFERENCE,
            x[:30],
            x[30:],
            num_samples=40,
            num_nll=5,
            multiples=(1, 2),
            quick=True,
        )
        assert set(figures) == {
            *("reconstruction_mse", "energy_train", "energy_test", "energy_model"),
            *("frechet", "precision", "recall", "density", "coverage"),
            *("nll_lower", "nll_upper", "nll_error", "nll_lower_reliable"),
            *("log_z_lower", "log_z_upper", "log_z_reliable"),
            *("rhat", "ess_per_draw", "acceptance"),
            *(
                f"{name}_{multiple}x"
                for name in ("energy", "norm", "frechet")
                for multiple in (1, 2)
            ),
            *("num_test", "num_samples"),
        }
        assert all(isinstance(value, float) for value in figures.values())
        assert figures["num_samples"] == 8
        assert math.isnan(figures["nll_error"])  # one datum has no spread
        assert all(math.isfinite(value) for name, value in figures.items() if name != "nll_error")

    def test_bounds_that_cross_by_more_than_noise_are_named(self) -> None:
        noise = torch.linspace(-1, 1, 50)
        upper = torch.randn(50).sort().values
        assert crosses(upper + 1 + noise, upper)
        assert not crosses(upper + noise, upper)
        assert not crosses(upper - 1 + noise, upper)
        assert crosses(upper[:1] + 1, upper[:1])

    def test_the_bounds_of_a_linear_model_do_not_cross(self) -> None:
        model = LinearGaussian()
        figures = held_out_nll(model, model.marginal().sample((20,)), quick=True)
        assert figures["nll_lower_reliable"] == 1

    def test_evaluate_of_images_measures_in_features_only(self) -> None:
        model, x = image_model(), torch.rand(40, 1, 8, 8) * 2 - 1
        arguments = {"num_samples": 20, "num_nll": 0, "multiples": (1,)}
        plain = evaluate(model, INFERENCE, x[:20], x[20:], **arguments)
        assert not {"frechet", "precision", "frechet_1x"} & set(plain)
        seen = evaluate(
            model, INFERENCE, x[:20], x[20:], features=lambda y: y.flatten(1)[:, :5], **arguments
        )
        assert {"frechet", "precision", "frechet_1x"} <= set(seen)

    def test_evaluate_of_a_gaussian_prior_has_no_chain(self) -> None:
        model, x = LatentModel(GaussianPrior(2), image_model().likelihood), torch.rand(40, 1, 8, 8)
        figures = evaluate(model, INFERENCE, x[:20], x[20:], num_samples=20, num_nll=0)
        assert figures["energy_test"] == 0
        assert not any(name.startswith(("rhat", "norm")) for name in figures)
        assert evaluation_figures(model, INFERENCE, x[:20], x[20:]) == {}

    def test_evaluate_is_reproducible(self) -> None:
        model, x = image_model(), torch.rand(40, 1, 8, 8)
        a, b = (
            evaluate(
                *(model, INFERENCE, x[:20], x[20:]),
                num_samples=20,
                num_nll=0,
                multiples=(1, 3),
                generator=torch.Generator().manual_seed(4),
            )
            for _ in range(2)
        )
        assert a == b

    def test_reconstruction_is_of_held_out_data(self) -> None:
        model = LinearGaussian()
        climb = MCMCPosterior(Langevin(0.1, 300, temperature=0.0), start="zero")
        train, test = torch.zeros(10, 3).double(), torch.randn(10, 3).double()
        figures = evaluate(model, climb, train, test, num_samples=10, num_nll=0, multiples=(1,))
        x_hat = model.decoder(model.posterior(test).mean)
        assert figures["reconstruction_mse"] == pytest.approx(
            (test - x_hat).square().mean().item()
        )

    def test_refusals(self) -> None:
        x = torch.zeros(20, 3)
        with pytest.raises(
            ValueError, match=r"train must have the event shape \(3,\) of test, got \(2,\)"
        ):
            evaluate(energy_model(), INFERENCE, torch.zeros(20, 2), x)
        with pytest.raises(ValueError, match="num_samples must be at least 6, got"):
            evaluate(energy_model(), INFERENCE, x, x, num_samples=5)

    @pytest.mark.parametrize("make", [energy_model, image_model])
    def test_figures_are_drawn_and_saved(self, make, tmp_path: Path) -> None:
        model = make()
        x = model.sample(30)
        settings: dict[str, Any] = {"num_samples": 50, "num_shown": 6, "multiples": (1, 2)}
        shown: list[torch.Size] = []
        figures = evaluation_figures(
            model,
            INFERENCE,
            x[:15],
            x[15:],
            **settings,
            show=lambda x: shown.append(x.shape) or x.clamp(-1, 1),
        )
        assert len(shown) == 2  # in the units that the caller shows
        assert set(figures) == {"energies", "long_run"}
        assert len(figures["long_run"].axes) == 2
        save_figure(figures["energies"], tmp_path / "new" / "energies.pdf")
        save_figure(figures["long_run"], tmp_path / "long_run.png")
        assert (tmp_path / "new" / "energies.pdf").read_bytes().startswith(b"%PDF")
        assert imread(tmp_path / "long_run.png").ndim == 3


class TestPictures:
    def test_grid_is_in_reading_order_with_white_lines(self) -> None:
        x = torch.arange(5).view(5, 1, 1, 1).expand(5, 1, 2, 3) / 2 - 1
        grid = image_grid(x, columns=3)
        assert grid.shape == (5, 11)
        np.testing.assert_array_equal(grid[0, [0, 4, 8]], [0.0, 0.25, 0.5])
        np.testing.assert_array_equal(
            grid[3, [0, 4, 8]], [0.75, 1.0, 1.0]
        )  # the last place is empty
        assert (grid[2] == 1).all()
        assert (grid[:, [3, 7]] == 1).all()
        assert image_grid(x).shape == (5, 11)

    def test_colour_stays_colour_and_excess_is_cut_off(self) -> None:
        x = torch.zeros(1, 3, 2, 2)
        x[:, 0], x[:, 2] = 7.0, -7.0
        grid = image_grid(x)
        assert grid.shape == (2, 2, 3)
        np.testing.assert_array_equal(grid[0, 0], [1.0, 0.5, 0.0])

    def test_saved_grid_has_the_pixels(self, tmp_path: Path) -> None:
        x = torch.rand(4, 1, 28, 28) * 2 - 1
        save_grid(x, tmp_path / "grid.png")
        pixels = imread(tmp_path / "grid.png")[..., 0]
        np.testing.assert_allclose(pixels[::2, ::2], image_grid(x), atol=2 / 255)
        assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]

    def test_pixels_in_other_units_are_noticed(self) -> None:
        with pytest.warns(UserWarning, match=r"x should be images in \[-1, 1\], got \[0, 255\]"):
            image_grid(torch.linspace(0, 255, 64).view(1, 1, 8, 8))

    def test_a_failed_write_leaves_the_old_file_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "out.txt"
        path.write_text("old")

        def write() -> None:
            with atomic_path(path) as temporary:
                temporary.write_text("half")
                raise RuntimeError("disk on fire")

        with pytest.raises(RuntimeError, match="disk on fire"):
            write()
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (torch.zeros(2, 8, 8), r"x must be images .* got shape \(2, 8, 8\)"),
            (torch.zeros(2, 2, 8, 8), r"x must be images"),
            (torch.zeros(0, 1, 8, 8), r"x must be images"),
            (torch.full((1, 1, 2, 2), math.nan), "x must be finite"),
        ],
    )
    def test_refusals(self, x: Tensor, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            image_grid(x)
        with pytest.raises(ValueError, match="columns must be an integer >= 1, got 0"):
            image_grid(torch.zeros(1, 1, 2, 2), columns=0)
