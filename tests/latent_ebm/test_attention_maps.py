"""Maps of cross-attention: read, written and kept, in networks of this library and of
``diffusers``.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from latent_ebm.denoisers.teachers import DiffusersNetwork
from latent_ebm.guidance.attention_maps import cross_attentions, record, replace
from latent_ebm.networks import MobileUNet
from latent_ebm.networks.attention import Attention, Weights
from tests.latent_ebm.test_mobile_unet import wake
from tests.samplers.table import seeded

TOKENS, DIM = 5, 12


def ours(weights: Weights = "softmax") -> nn.Module:
    torch.manual_seed(0)
    levels = (8, 16), (1, 1), (1, 1), (False, True), (True, True)
    net = MobileUNet((1, 4, 4), DIM, *levels, weights=weights)
    return wake(net).double().requires_grad_(False)


def theirs() -> nn.Module:
    diffusers = pytest.importorskip("diffusers", reason="not installed: diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=4,
        in_channels=1,
        out_channels=1,
        cross_attention_dim=DIM,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
    )
    return DiffusersNetwork(unet).double().requires_grad_(False)


KINDS = {"softmax": ours, "relu": lambda: ours("relu"), "diffusers": theirs}
NETWORKS = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
Make = Callable[[], nn.Module]


def told(seed: int = 0, num: int = 3) -> dict[str, Tensor]:
    text = torch.randn(num, TOKENS, DIM, generator=seeded(seed)).double()
    shown = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 0, 1]]).bool()
    return {"text": text, "mask": shown[:num]}


def call(network: nn.Module, condition: dict[str, Tensor]) -> Tensor:
    num = len(condition["text"])
    x = torch.randn(num, 1, 4, 4, generator=seeded(9)).double()
    return network(x, torch.full((num,), 0.3).double(), **condition)


@NETWORKS
def test_watching_changes_nothing_but_rounding(make: Make) -> None:
    network, condition = make(), told()
    fused = call(network, condition)
    with record(network):
        torch.testing.assert_close(call(network, condition), fused, rtol=1e-11, atol=1e-12)
    assert torch.equal(call(network, condition), fused)  # and is over


@NETWORKS
def test_recorded_maps_are_weights_of_tokens(make: Make) -> None:
    network, condition = make(), told()
    with record(network) as maps:
        call(network, condition)
        call(network, condition)
    assert list(maps) == list(cross_attentions(network))
    assert len(maps) >= 4
    for calls in maps.values():
        assert torch.equal(calls[0], calls[1])
        weights = calls[0]
        assert weights.shape[0] == 3
        assert weights.shape[2] in (4, 16)
        assert weights.shape[3] == TOKENS
        hidden = ~condition["mask"][:, None, None].expand_as(weights)
        assert not weights[hidden].any()
        assert (weights >= 0).all()
        if make is not KINDS["relu"]:
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]).double())


@NETWORKS
def test_replaced_maps_are_the_stored_ones(make: Make) -> None:
    """Bit by bit, for all tokens but the two that keep their own weights."""
    network = make()
    with record(network) as stored:
        call(network, told(0))
    own = [1, TOKENS - 1]
    with record(network) as used, replace(network, stored, [1, -1]):
        replaced = call(network, told(1))
    kept = [i for i in range(TOKENS) if i not in own]
    first = next(iter(stored))
    with record(network) as plain:
        new = call(network, told(1))
    assert not torch.allclose(replaced, new)
    for name, (weights,) in used.items():
        assert torch.equal(weights[..., kept], stored[name][0][..., kept])
    assert torch.equal(used[first][0][..., own], plain[first][0][..., own])
    assert not torch.equal(used[first][0][..., own], stored[first][0][..., own])


@NETWORKS
def test_replacing_by_its_own_maps_changes_nothing(make: Make) -> None:
    network, condition = make(), told()
    with record(network) as maps:
        outputs = [call(network, c) for c in (condition, told(1))]
    for tokens in ([], [0, 2], range(TOKENS)):
        with replace(network, maps, tokens):
            for c, output in zip((condition, told(1)), outputs, strict=True):
                assert torch.equal(call(network, c), output)


@NETWORKS
def test_an_error_inside_leaves_nothing_behind(make: Make) -> None:
    network, condition = make(), told()
    fused = call(network, condition)
    with pytest.raises(RuntimeError, match="inside"), record(network), record(network):
        raise RuntimeError("inside")
    assert torch.equal(call(network, condition), fused)
    assert all(module.watch is None for module in network.modules() if hasattr(module, "watch"))


@pytest.mark.parametrize("weights", ["softmax", "relu"])
def test_a_row_that_sees_no_token_has_no_weights(weights: Weights) -> None:
    layer, seen = Attention(8, 6, weights=weights), []
    x, context, mask = torch.randn(2, 3, 8), torch.randn(2, 4, 6), torch.zeros(2, 4).bool()
    mask[1, 2] = True
    fused = layer(x, context, mask)
    layer.watch = lambda w: seen.append(w) or w
    torch.testing.assert_close(layer(x, context, mask), fused)
    assert not seen[0][0].any()
    assert seen[0][1, ..., 2].any()


def test_maps_carry_gradients() -> None:
    """So that a loss may pull on where a token acts."""
    network, condition = ours(), told()
    condition["text"].requires_grad_()
    with record(network) as maps:
        call(network, condition)
    (grad,) = torch.autograd.grad(next(iter(maps.values()))[0].square().sum(), condition["text"])
    assert grad.abs().sum() > 0


@NETWORKS
def test_meta_tensors_pass(make: Make) -> None:
    network = make().to("meta")
    condition = {name: value.to("meta") for name, value in told().items()}
    x, level = torch.empty(3, 1, 4, 4, device="meta").double(), torch.empty(3, device="meta")
    with record(network) as maps:
        network(x, level.double(), **condition)
    with replace(network, maps, [2]):
        assert network(x, level.double(), **condition).is_meta


def replaced(maps=None, tokens=(1,), num: int = 3, calls: int = 1) -> None:
    network = ours()
    with record(network) as found:
        call(network, told())
    with replace(network, found if maps is None else maps, tokens):
        for _ in range(calls):
            call(network, told(num=num))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: record(nn.Linear(2, 2)).__enter__(),
            "network must have cross-attention, .* got Linear",
        ),
        (lambda: replaced(maps={}), r"maps must hold every .* got none for down.0.transformers.0"),
        (lambda: replaced(tokens=[5]), "tokens must be places among 5 tokens, got 5"),
        (lambda: replaced(tokens=[1.5]), "tokens must be integers, got 1.5"),
        (lambda: replaced(tokens=[True]), "tokens must be integers, got True"),
        (lambda: replaced(tokens=2), "tokens must be a list of places, got 2"),
        (lambda: replaced(maps=[1]), "maps must be a Mapping"),
        (lambda: replaced(tokens=[-6]), "tokens must be places among 5 tokens, got -6"),
        (
            lambda: replaced(num=2),
            r"maps of .* must have shape \(2, 4, 16, 5\) .* got shape \(3, 4, 16, 5\)",
        ),
        (lambda: replaced(calls=2), "for every call, got no more"),
    ],
)
def test_refusals(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_processors_that_do_more_are_refused() -> None:
    network = theirs()
    network.model.set_attn_processor(lambda *inputs, **more: inputs[0])  # pyright: ignore
    with pytest.raises(ValueError, match=r"attn2 must have one of the processors .* got function"):
        record(network).__enter__()
