"""Networks: the closed-form gradient equals the recorded one, shapes for all sizes, rows do not
mix.
"""

import pytest
import torch
from torch import Tensor

from latent_ebm.networks import MLP, ConvDecoder, ConvEncoder, EnergyMLP, energy
from samplers import value_and_grad
from samplers.derivatives import value_and_divergence

ACTIVATIONS = ["gelu", "leaky_relu", "silu", "tanh"]
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (2, 12, 12), (1, 5, 5)]


def recorded(network: EnergyMLP, x: Tensor) -> tuple[Tensor, Tensor]:
    return value_and_grad(lambda z: network(z), x)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (7,), (20, 20), (5, 9, 6)])
@pytest.mark.parametrize("batch", [1, 13])
def test_closed_form_gradient_is_the_recorded_one(
    activation: str, hidden: tuple[int, ...], batch: int
) -> None:
    network = EnergyMLP(6, hidden, activation).double()
    before = [p.clone() for p in network.parameters()]
    x = 3 * torch.randn(batch, 6, dtype=torch.float64)
    value, grad = network.value_and_grad(x)
    expected_value, expected_grad = recorded(network, x)
    torch.testing.assert_close(value, expected_value, rtol=0, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-12)
    gradient, kept = network.workspace(x), grad.clone()
    gradient(torch.zeros_like(x))
    assert torch.equal(gradient(x), kept)
    assert torch.equal(grad, kept)  # what was returned before is not written over
    assert not value.requires_grad
    assert not grad.requires_grad
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.grad is None


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (7,), (20, 20), (5, 9, 6)])
def test_closed_form_laplacian_is_the_recorded_one(
    activation: str, hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "BLOCK", 500)  # several blocks of rows
    network, x = (
        EnergyMLP(6, hidden, activation).double(),
        3 * torch.randn(13, 6, dtype=torch.float64),
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    expected = value_and_divergence(
        lambda z: torch.autograd.grad(network(z).sum(), z, create_graph=True)[0], x
    )
    grad, laplacian = network.grad_and_laplacian(x)
    torch.testing.assert_close(
        (grad, laplacian), tuple(part.detach() for part in expected), rtol=1e-12, atol=1e-12
    )
    assert not grad.requires_grad
    assert not laplacian.requires_grad
    if hidden and activation != "leaky_relu":
        assert laplacian.abs().min() > 0


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (7,), (5, 9)])
def test_stack_is_the_weighted_sum_of_its_networks(
    activation: str, hidden: tuple[int, ...]
) -> None:
    networks = [EnergyMLP(6, hidden, activation).double() for _ in range(4)]
    weights, x = (
        torch.tensor([1.0, -0.3, 0.7, 2.0]).double(),
        3 * torch.randn(13, 6, dtype=torch.float64),
    )
    stack = energy.EnergyStack(networks, weights)
    expected = value_and_grad(
        lambda z: sum(w * network(z) for w, network in zip(weights, networks, strict=True)), x
    )
    torch.testing.assert_close(stack.value_and_grad(x), expected, rtol=1e-12, atol=1e-12)
    gradient = stack.workspace(x)
    gradient(torch.zeros_like(x))
    assert torch.equal(gradient(x), stack.value_and_grad(x)[1])
    torch.testing.assert_close(
        value_and_grad(lambda z: stack(z), x), expected, rtol=1e-12, atol=1e-12
    )
    single = energy.EnergyStack([network.float() for network in networks], weights.float())
    torch.testing.assert_close(
        single.value_and_grad(x.float())[1].double(), expected[1], rtol=1e-5, atol=1e-5
    )


def test_unlike_networks_are_not_stacked() -> None:
    for other in (EnergyMLP(6, (7, 7)), EnergyMLP(6, (7,), "silu"), torch.nn.Linear(6, 1)):
        assert not energy.are_alike([EnergyMLP(6, (7,)), other])
        with pytest.raises(ValueError, match="networks must be EnergyMLPs of one shape"):
            energy.EnergyStack([EnergyMLP(6, (7,)), other], torch.ones(2))
    with pytest.raises(ValueError, match="at least one"):
        energy.EnergyStack([], torch.ones(0))


def test_samplers_take_the_closed_form() -> None:
    network = EnergyMLP(4, (8,))
    x = torch.randn(3, 4)
    with torch.inference_mode():  # nothing can be recorded here
        value, grad = value_and_grad(network, x)
    torch.testing.assert_close((value, grad), recorded(network, x))


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_dtypes_are_not_mixed_silently(hidden: tuple[int, ...]) -> None:
    network, x = EnergyMLP(4, hidden), torch.randn(3, 4, dtype=torch.float64)
    for function in (network.value_and_grad, network.workspace):
        with pytest.raises(
            ValueError,
            match=r"x must have the dtype torch.float32 of the network, got torch.float64",
        ):
            function(x)


def test_closed_form_gradient_under_autocast() -> None:
    network, x = EnergyMLP(4, (16, 16)), torch.randn(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, grad = network.value_and_grad(x)
        expected_value, expected_grad = recorded(network, x)
    assert (value.dtype, grad.dtype) == (expected_value.dtype, expected_grad.dtype)
    torch.testing.assert_close(grad, expected_grad, rtol=0.05, atol=0.02)


def test_energy_trains_and_starts_from_zero() -> None:
    network = EnergyMLP(3)
    *_, bias = (torch.nn.init.zeros_(p) for p in network.layers[-1].parameters())
    x = torch.randn(5, 3)
    assert torch.equal(network(x), torch.zeros(5))
    assert torch.equal(network.value_and_grad(x)[1], torch.zeros(5, 3))
    assert torch.autograd.grad(network(x).sum(), bias)[0].item() == 5


@pytest.mark.parametrize("out_shape", [4, (4,), (2, 3), (1, 8, 8)])
@pytest.mark.parametrize("hidden", [(), (11, 7)])
def test_mlp_shapes(out_shape: int | tuple[int, ...], hidden: tuple[int, ...]) -> None:
    event = (out_shape,) if isinstance(out_shape, int) else out_shape
    assert MLP(5, out_shape, hidden)(torch.randn(3, 5)).shape == (3, *event)
    assert MLP(12, 5)(torch.randn(3, 3, 2, 2)).shape == (3, 5)


@pytest.mark.cpu
@pytest.mark.parametrize("shape", SHAPES)
def test_convnets_have_shapes_and_do_not_mix_rows(shape: tuple[int, int, int]) -> None:
    decoder, encoder = ConvDecoder(3, shape, channels=4), ConvEncoder(shape, 6, channels=4)
    z = torch.randn(5, 3)
    x = decoder(z)
    assert x.shape == (5, *shape)
    assert x.abs().max() <= 1
    assert encoder(x).shape == (5, 6)
    torch.testing.assert_close(decoder(z[2:3]), x[2:3])
    torch.testing.assert_close(encoder(x[2:3]), encoder(x)[2:3])


def test_linear_output_is_not_squashed() -> None:
    decoder = ConvDecoder(3, (1, 8, 8), channels=4, output="linear")
    assert decoder(1000 * torch.randn(2, 3)).abs().max() > 1


def test_networks_run_on_the_meta_device() -> None:
    with torch.device("meta"):
        energy, mlp = EnergyMLP(4), MLP(4, 2)
        decoder, encoder = ConvDecoder(4, (1, 28, 28), 4), ConvEncoder((1, 28, 28), 8, 4)
        z = torch.empty(3, 4)
    value, grad = energy.value_and_grad(z)
    assert (value.shape, grad.shape, value.device.type) == ((3,), (3, 4), "meta")
    assert mlp(z).shape == (3, 2)
    assert encoder(decoder(z)).shape == (3, 8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EnergyMLP(0), "dim must be an integer >= 1, got 0"),
        (lambda: EnergyMLP(2, (3, -1)), "hidden must be an integer >= 1, got -1"),
        (lambda: EnergyMLP(2, activation="relu6"), "activation must be one of gelu"),
        (lambda: EnergyMLP(2)(torch.zeros(3, 4)), r"x must have shape \(batch, 2\), got \(3, 4\)"),
        (lambda: EnergyMLP(2).value_and_grad(torch.zeros(2)), r"x must have shape \(batch, 2\)"),
        (lambda: MLP(2, (3, 0)), "out_shape must be an integer >= 1, got 0"),
        (lambda: ConvDecoder(2, (1, 28, 32)), "shape must be .* with H = W"),
        (lambda: ConvDecoder(2, (28, 28)), "shape must be .* with H = W"),
        (lambda: ConvDecoder(2, (1, 27, 27)), r"halves down to 8 or less, got \(1, 27, 27\)"),
        (lambda: ConvEncoder((1, 44, 44), 2), "halves down to 8"),
        (lambda: ConvEncoder((0, 8, 8), 2), "channels of shape must be an integer >= 1, got 0"),
        (lambda: ConvDecoder(2, (1, 8, 8), output="sigmoid"), "output must be tanh or linear"),
    ],
)
def test_errors_name_argument_rule_and_value(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_decoder_maps_lie_channels_last() -> None:
    decoder, lie = ConvDecoder(4, (3, 32, 32), channels=4), []
    for layer in decoder.blocks[2:6]:  # all that make maps at the resolutions of convolutions
        layer.register_forward_hook(
            lambda layer, x, y: lie.append(y.is_contiguous(memory_format=torch.channels_last))
        )
    decoder(torch.randn(5, 4))
    assert lie == 4 * [True]
