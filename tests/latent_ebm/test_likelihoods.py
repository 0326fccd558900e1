"""Likelihoods against scipy, with all constants; what a mask hides does not count."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from latent_ebm import BernoulliLikelihood, GaussianLikelihood, Likelihood, Masked
from latent_ebm.networks import ConvDecoder


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def linear() -> nn.Module:
    return nn.Linear(2, 5).double()


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.cpu
def test_gaussian_log_prob_is_scipys() -> None:
    decoder, z, x = linear(), normal(4, 2), normal(4, 5)
    likelihood = GaussianLikelihood(decoder, 0.3).double()
    expected = stats.norm(decoder(z).detach().numpy(), 0.3).logpdf(x.numpy()).sum(1)
    np.testing.assert_allclose(likelihood(z).log_prob(x).detach(), expected, rtol=1e-6)


@pytest.mark.cpu
def test_bernoulli_log_prob_is_scipys() -> None:
    decoder, z, x = linear(), normal(4, 2), torch.randint(2, (4, 5)).double()
    chance = torch.sigmoid(decoder(z)).detach()
    expected = stats.bernoulli(chance.numpy()).logpmf(x.numpy()).sum(1)
    likelihood = BernoulliLikelihood(decoder)
    np.testing.assert_allclose(likelihood(z).log_prob(x).detach(), expected, rtol=1e-9)
    torch.testing.assert_close(likelihood(z).mean, chance)


def test_images_are_events() -> None:
    conditional = GaussianLikelihood(ConvDecoder(3, (2, 8, 8), channels=4), 0.5)(torch.randn(6, 3))
    assert (conditional.batch_shape, conditional.event_shape) == ((6,), (2, 8, 8))
    assert conditional.log_prob(torch.zeros(6, 2, 8, 8)).shape == (6,)


def test_learned_scale_has_the_closed_form_gradient() -> None:
    decoder, z, x = linear(), normal(4, 2), normal(4, 5)
    likelihood = GaussianLikelihood(decoder, 0.3, learn_scale=True).double()
    likelihood(z).log_prob(x).sum().backward()
    expected = ((x - decoder(z)).square() / 0.3**2 - 1).sum()  # d log N / d log sigma
    torch.testing.assert_close(likelihood.log_scale.grad, expected.detach(), rtol=1e-6, atol=0)
    assert [
        name for name, _ in GaussianLikelihood(decoder, 0.3).named_parameters() if "scale" in name
    ] == []


@pytest.mark.parametrize("name", ["gaussian", "bernoulli"])
def test_masked_counts_the_observed_entries_only(name: str) -> None:
    decoder, z = linear(), normal(4, 2)
    mask = torch.tensor([True, False, True, True, False])
    part = nn.Linear(2, 3).double()
    part.weight.data, part.bias.data = decoder.weight.data[mask], decoder.bias.data[mask]
    make = {
        "gaussian": lambda d: GaussianLikelihood(d, 0.3).double(),
        "bernoulli": BernoulliLikelihood,
    }[name]
    x = torch.randint(2, (4, 5)).double()
    masked = Masked(make(decoder), mask)
    torch.testing.assert_close(masked(z).log_prob(x), make(part)(z).log_prob(x[:, mask]))
    torch.testing.assert_close(masked(z).mean, make(decoder)(z).mean)
    other = torch.where(mask, x, 1 - x)
    torch.testing.assert_close(masked(z).log_prob(other), masked(z).log_prob(x))


@pytest.mark.parametrize("make", [partial(GaussianLikelihood, scale=0.3), BernoulliLikelihood])
def test_hidden_entries_may_be_missing(make: Callable[..., Likelihood]) -> None:
    """NaN where nothing was observed changes neither the value nor its gradient."""
    mask = torch.tensor([True, False, True, True, False])
    masked, x = Masked(make(linear()).double(), mask), torch.randint(2, (4, 5)).double()
    missing = x.where(mask, math.nan)
    masked.check(missing)
    found, z = [], normal(4, 2).requires_grad_()
    for value in (x, missing):
        log_prob = masked(z).log_prob(value)
        found.append(torch.cat([log_prob, *torch.autograd.grad(log_prob.sum(), z)[0]]))
    assert torch.equal(*found)
    assert torch.equal(masked(z).expand((3, 4)).log_prob(missing)[2], masked(z).log_prob(x))
    missing[0, 0] = math.nan
    assert masked(normal(4, 2)).log_prob(missing).isnan().tolist() == [True] + [False] * 3


def test_a_mask_may_differ_from_row_to_row() -> None:
    decoder, z, x = linear(), normal(2, 2), normal(2, 5)
    mask = torch.tensor([[True] * 5, [False] * 5])
    log_prob = Masked(GaussianLikelihood(decoder, 0.3).double(), mask)(z).log_prob(x)
    torch.testing.assert_close(
        log_prob[0], GaussianLikelihood(decoder, 0.3).double()(z).log_prob(x)[0]
    )
    assert log_prob[1] == 0


class Correlated(Likelihood):
    """A likelihood whose entries are not independent, so that a mask cannot take them apart."""

    def forward(self, z: Tensor) -> MultivariateNormal:
        return MultivariateNormal(z, torch.eye(2).to(z))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scale_must_be_positive(scale: float) -> None:
    with pytest.raises(ValueError, match=r"scale must be finite and positive, got"):
        GaussianLikelihood(linear(), scale)


def test_mask_refusals() -> None:
    with pytest.raises(ValueError, match=r"mask must be a boolean tensor, got torch\.float32"):
        Masked(GaussianLikelihood(linear(), 1.0), torch.ones(5))
    with pytest.raises(
        ValueError, match=r"likelihood must give a torch Independent .* got MultivariateNormal"
    ):
        Masked(Correlated(), torch.ones(2, dtype=torch.bool))(normal(3, 2))
