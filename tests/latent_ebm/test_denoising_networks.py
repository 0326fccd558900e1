"""Denoising networks: shapes, rows that do not mix, what the condition says, and how they
start.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import pixel_unshuffle

from latent_ebm.networks import DenoiserMLP, MobileUNet, UNet
from latent_ebm.networks.unet import fold, unfold

NETWORKS = {
    "unet 8": (lambda **k: UNet((1, 8, 8), 8, patch=1, depth=1, **k), (1, 8, 8)),
    "unet 28": (lambda **k: UNet((1, 28, 28), 8, **k), (1, 28, 28)),
    "unet 32": (lambda **k: UNet((3, 32, 32), 16, depth=1, **k), (3, 32, 32)),
    "mlp": (lambda **k: DenoiserMLP(3, (16, 16), **k), (3,)),
    "mlp of images": (lambda **k: DenoiserMLP((1, 4, 4), (16,), **k), (1, 4, 4)),
}


def moved(network: nn.Module) -> nn.Module:
    """``network`` with no parameter at zero."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize(("make", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_rows_do_not_mix_and_the_condition_is_heard(make, shape):
    network = moved(make(num_classes=4))
    x, level, label = (
        torch.randn(5, *shape),
        torch.linspace(-1.5, 1.5, 5),
        torch.tensor([0, 3, -1, 2, 1]),
    )
    out = network(x, level, label)
    assert out.shape == x.shape
    for i in range(5):
        torch.testing.assert_close(
            network(x[[i]], level[[i]], label[[i]]), out[[i]], rtol=1e-4, atol=1e-4
        )
    louder, relabelled = network(x, level + 0.3, label), network(x, level, label.flip(0))
    assert not torch.allclose(louder, out, atol=1e-3)
    assert not torch.allclose(relabelled[0], out[0], atol=1e-3)
    torch.testing.assert_close(relabelled[2], out[2])
    torch.testing.assert_close(network(x, level), network(x, level, torch.full((5,), -1)))


@pytest.mark.parametrize(("make", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_every_parameter_learns_on_the_device_it_is_on(make, shape):
    network = moved(make(num_classes=4)).to("meta")
    x, level = torch.randn(5, *shape, device="meta"), torch.zeros(5, device="meta")
    network(x, level, torch.zeros(5, dtype=torch.long, device="meta")).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_unet_starts_at_zero_and_is_small():
    network = UNet((1, 28, 28), num_classes=10)
    x = torch.randn(2, 1, 28, 28)
    assert torch.equal(network(x, torch.zeros(2)), torch.zeros_like(x))
    assert sum(p.numel() for p in network.parameters()) < 1_000_000


def test_refusals():
    with pytest.raises(ValueError, match="label must be None for a network without num_classes"):
        DenoiserMLP(3)(torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"sides that are multiples of 4, got \(1, 30, 30\)"):
        UNet((1, 30, 30))
    with pytest.raises(ValueError, match="channels must be a multiple of 8, got 12"):
        UNet((1, 28, 28), 12)
    with pytest.raises(ValueError, match="num_classes must be an integer >= 1, got 0"):
        DenoiserMLP(3, num_classes=0)
    with pytest.raises(ValueError, match="number of hidden layers must be"):
        DenoiserMLP(3, ())


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("kind", [UNet, partial(MobileUNet, text_dim=5, transformers=(0, 1, 1))])
def test_no_rows_in_no_rows_out(kind: Callable[..., nn.Module], patch: int) -> None:
    net = kind((3, 16, 16), patch=patch)
    assert net(torch.zeros(0, 3, 16, 16), torch.zeros(0)).shape == (0, 3, 16, 16)


def test_cells_are_those_of_pixel_shuffle() -> None:
    """Weights that were saved with it give the same images."""
    x = torch.randn(2, 3, 6, 4)
    assert torch.equal(fold(2)(x), pixel_unshuffle(x, 2))
    assert torch.equal(unfold(2)(pixel_unshuffle(x, 2)), x)
