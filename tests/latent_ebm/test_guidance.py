"""Guidance against the exact posterior of a class in a mixture."""

import pytest
import torch

from latent_ebm.conditions import label_condition
from latent_ebm.denoisers import GaussianMixtureDenoiser
from latent_ebm.guidance import ClassifierFree
from samplers.schedules import VPCosine


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_classifier_free_guidance_adds_the_gradient_of_the_class_posterior(weight):
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 2.0]], dtype=torch.float64)
    mixture = GaussianMixtureDenoiser(
        [0.5, 0.3, 0.2], means, means.new_tensor([0.3, 0.5, 0.4]), VPCosine()
    )
    x, t = torch.randn(7, 2, dtype=torch.float64, requires_grad=True), torch.tensor(0.4)
    label, unknown = torch.arange(7) % 3, label_condition(torch.tensor([-1]))
    marginal, conditional = mixture.log_prob(x, t), mixture.log_prob(x, t, label=label)
    (expected,) = torch.autograd.grad((marginal + weight * (conditional - marginal)).sum(), x)
    guided = ClassifierFree(mixture, weight, unknown).score(x, t, label=label)
    torch.testing.assert_close(guided, expected)
