"""Self-supervision: the terms of the loss in closed form, views that keep what they must, and
collapse seen and avoided.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latent_ebm.learning import Augment, VICReg
from latent_ebm.networks import ResidualEncoder
from latent_ebm.objectives import vicreg


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(num: int, dim: int) -> Tensor:
    """Rows whose sample covariance is the identity."""
    z = draw(num, dim)
    z = z - z.mean(0)
    return torch.linalg.solve_triangular(
        torch.linalg.cholesky(torch.atleast_2d(torch.cov(z.mT))), z.mT, upper=False
    ).mT


def identity(**changes: float) -> Augment:
    """An augmentation that changes nothing but what is named."""
    return Augment(
        **{"min_area": 1.0, "flip": 0.0, "jitter": 0.0, "grey": 0.0, "noise": 0.0, **changes}
    )


# ---------------------------------------------------------------------------------
# loss


@pytest.mark.cpu
def test_terms_are_those_of_numpy() -> None:
    z, other = draw(7, 4), 0.5 * draw(7, 4, seed=1)
    invariance = np.mean((z.numpy() - other.numpy()) ** 2)
    variance = covariance = 0.0
    for view in (z.numpy(), other.numpy()):
        cov = np.cov(view, rowvar=False)
        variance += np.mean(np.maximum(0, 1 - np.sqrt(np.diag(cov) + 1e-4))) / 2
        covariance += np.sum((cov - np.diag(np.diag(cov))) ** 2) / 4
    assert [term.item() for term in vicreg(z, other)] == pytest.approx(
        [invariance, variance, covariance], rel=1e-12
    )


def test_equal_white_views_cost_nothing_and_a_shift_costs_its_square() -> None:
    z = whitened(50, 3)
    assert [term.item() for term in vicreg(z, z)] == pytest.approx([0, 0, 0], abs=1e-12)
    assert [term.item() for term in vicreg(z, z + 2)] == pytest.approx([4, 0, 0], abs=1e-12)


def test_variance_sees_collapse_and_covariance_repetition() -> None:
    z = whitened(50, 1)
    collapsed = torch.ones(50, 3, dtype=torch.float64, requires_grad=True)
    assert [term.item() for term in vicreg(collapsed, collapsed)] == pytest.approx(
        [0, 0.99, 0], abs=1e-12
    )
    repeated = z.expand(-1, 3)  # all 6 pairs of columns have covariance 1, of two views
    assert [term.item() for term in vicreg(repeated, repeated)] == pytest.approx(
        [0, 0, 2 * 6 / 3], abs=1e-12
    )
    half = z * 0.5
    assert vicreg(half, half)[1].item() == pytest.approx(1 - math.sqrt(0.25 + 1e-4), rel=1e-12)


def test_loss_rejects_a_single_row() -> None:
    with pytest.raises(ValueError, match="z must have at least two rows, got 1"):
        vicreg(torch.zeros(1, 2), torch.zeros(1, 2))


def test_a_held_out_batch_of_one_row_has_no_metrics() -> None:
    """The last one of a set may be so small; the mean over the others goes on."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    rule = VICReg(encoder, nn.Linear(4, 6), Augment(), torch.optim.Adam)
    x = draw(3, 3, 4, 4).float().tanh()
    assert rule.held_out(x[:1]) == {}
    assert rule.held_out(x)["loss"].isfinite()


# ---------------------------------------------------------------------------------
# views


def test_views_keep_shape_and_range_and_follow_the_generator() -> None:
    x = draw(6, 3, 12, 12).float().tanh()
    torch.manual_seed(0)
    first, second = Augment()(x), Augment()(x)
    torch.manual_seed(0)
    again = Augment()(x)
    assert first.shape == x.shape
    assert first.abs().max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_an_augmentation_that_changes_nothing_is_the_identity_and_a_sure_flip_the_mirror() -> None:
    x = draw(5, 3, 9, 9).tanh()
    torch.testing.assert_close(identity()(x), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(identity(flip=1.0)(x), x.flip(3), rtol=0, atol=1e-12)


def test_a_crop_reads_a_ramp_at_a_random_side_and_place_of_its_own() -> None:
    """On the ramp x_j = j the view is an affine ramp: its slope is the side, its ends stay inside
    the image.
    """
    size = 16
    ramp = torch.arange(size, dtype=torch.float64).expand(400, 1, size, size)
    torch.manual_seed(0)
    view = identity(min_area=0.25, flip=0.5).crop(ramp)[:, 0]
    inner = view[:, :, 3:-3]  # away from the border, which is repeated
    slope = inner.diff(dim=2)
    torch.testing.assert_close(slope, slope[:, :1, :1].expand_as(slope), rtol=0, atol=1e-9)
    side = slope[:, 0, 0]
    assert side.abs().min() >= 0.5
    assert side.abs().max() <= 1
    assert 0.4 < (side < 0).double().mean() < 0.6
    area = side.square()  # uniform in [.25, 1]
    assert area.mean().item() == pytest.approx(0.625, abs=4 * 0.75 / math.sqrt(12 * 400))
    centre = view.mean((1, 2)) - (size - 1) / 2
    assert bool((centre.abs() <= (1 - side.abs()) * size / 2 + 1e-9).all())
    assert centre.std() > 1


def test_colours_change_per_image_and_grey_takes_them_away() -> None:
    x = draw(200, 3, 4, 4).tanh()
    torch.manual_seed(0)
    grey = identity(grey=1.0)(x)
    torch.testing.assert_close(grey, x.mean(1, keepdim=True).expand_as(x), rtol=0, atol=1e-12)
    flat = torch.zeros(200, 3, 4, 4)
    bright = identity(jitter=0.4).recolour(flat)
    assert (bright - bright[:, :1, :1, :1]).abs().max() < 1e-6
    level = bright[:, 0, 0, 0]
    assert level.abs().max() <= 0.4
    assert level.std().item() == pytest.approx(0.4 / math.sqrt(3), rel=0.15)
    noisy = identity(noise=0.1)(flat)
    assert noisy.std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_area": 0.0}, r"min_area must be in \(0, 1\], got 0.0"),
        ({"flip": 1.5}, r"flip must be in \[0, 1\], got 1.5"),
        ({"jitter": -0.1}, r"jitter must be in \[0, 1\], got -0.1"),
        ({"noise": -1.0}, "noise must be finite and non-negative, got -1.0"),
    ],
)
def test_augment_rejects(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        identity(**changes)


# ---------------------------------------------------------------------------------
# rule


def blobs(num: int) -> Tensor:
    """Flat images (num, 3, 8, 8) of two colours in equal parts, with noise."""
    colour = torch.tensor([[0.8, -0.8, 0.0], [-0.8, 0.8, 0.0]])[torch.arange(num) % 2]
    return (colour.view(-1, 3, 1, 1) + 0.1 * draw(num, 3, 8, 8).float()).clamp(-1, 1)


def trained(variance: float, steps: int = 60) -> dict[str, Tensor]:
    """Unweighted terms on the training images after ``steps``."""
    torch.manual_seed(0)
    rule = VICReg(
        ResidualEncoder(3, 2),
        nn.Linear(8, 4),
        identity(min_area=0.5, noise=0.1),
        lambda parameters: torch.optim.Adam(parameters, lr=0.02),
        variance=variance,
    )
    optimizer, x = rule.configure_optimizers(), blobs(40)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack(list(rule.losses(x).values())).sum().backward()
        optimizer.step()
    embeddings = rule.projector(
        rule.encoder(torch.cat([rule.augment(x), rule.augment(x)]))
    ).detach()
    return dict(
        zip(("invariance", "variance", "covariance"), vicreg(*embeddings.chunk(2)), strict=True)
    )


def test_training_collapses_without_the_variance_term_and_not_with_it() -> None:
    assert trained(variance=0.0)["variance"] > 0.8
    assert trained(variance=25.0)["variance"] < 0.2


def test_the_rule_weighs_its_terms_and_generates_nothing() -> None:
    def rule(**weights: float) -> VICReg:
        return VICReg(nn.Flatten(), nn.Identity(), identity(), torch.optim.Adam, **weights)

    x = draw(6, 1, 2, 2).tanh()
    losses = rule(invariance=2.0, variance=3.0, covariance=5.0).losses(x)
    terms = vicreg(x.flatten(1).float(), x.flatten(1).float())
    assert list(losses) == ["invariance", "variance", "covariance"]
    for loss, term, weight in zip(losses.values(), terms, (2, 3, 5), strict=True):
        assert loss.item() == pytest.approx(weight * term.item(), rel=1e-5, abs=1e-10)
    noisy = VICReg(
        nn.Flatten(), nn.Identity(), identity(noise=0.1), torch.optim.Adam, invariance=1.0
    )
    views = torch.zeros(5000, 1, 2, 2)  # of which two differ by noise of variance 2 * .1^2
    assert noisy.losses(views)["invariance"].item() == pytest.approx(0.02, rel=0.05)
    with pytest.raises(ValueError, match="covariance must be finite and non-negative, got -1"):
        rule(covariance=-1.0)
    with pytest.raises(ValueError, match="to be sampled, got VICReg"):
        rule().generate(3)
