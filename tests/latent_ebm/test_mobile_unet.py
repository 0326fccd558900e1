"""Attention against its formula, and the U-Net whose savings are arguments."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from latent_ebm.networks.attention import Attention, FeedForward
from latent_ebm.networks.mobile_unet import MobileUNet

LARGE = {
    "channels": (16, 24, 32),
    "depth": (2, 2, 2),
    "transformers": (1, 1, 1),
    "self_attention": (True, True, True),
    "shared_kv": False,
    "expansion": 8,
    "gate": "gelu",
    "separable": False,
    "weights": "relu",  # FlopCounterMode counts every product of these, not those of fused ones
}


def network(**changes):
    return MobileUNet((3, 16, 16), 12, **{**LARGE, **changes})


def cost(net: nn.Module) -> tuple[int, int]:
    """Parameters, and multiply-adds for one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.randn(1, 3, 16, 16), torch.zeros(1), torch.randn(1, 5, 12))
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2


def wake(net: nn.Module) -> nn.Module:
    """``net`` without weights that are zero at first."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize("weights", ["softmax", "relu"])
@pytest.mark.parametrize("shared_kv", [False, True])
def test_attention_is_its_formula(weights: str, shared_kv: bool) -> None:
    torch.manual_seed(0)
    layer = Attention(8, 6, num_heads=2, shared_kv=shared_kv, weights=weights).double()
    x, context = torch.randn(3, 5, 8).double(), torch.randn(3, 4, 6).double()
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]]).bool()
    out = layer(x, context, mask)
    k = context @ layer.key.weight.T
    v = k if layer.value is None else context @ layer.value.weight.T
    q, expected = x @ layer.query.weight.T, torch.zeros(3, 5, 8).double()
    for row in range(3):
        for head in (slice(0, 4), slice(4, 8)):
            keys, values = k[row, mask[row], head], v[row, mask[row], head]
            logits = q[row, :, head] @ keys.T / math.sqrt(4)
            weight = logits.softmax(1) if weights == "softmax" else logits.relu() / len(keys)
            expected[row, :, head] = weight @ values
    torch.testing.assert_close(out, expected @ layer.out.weight.T + layer.out.bias)


@pytest.mark.parametrize("weights", ["softmax", "relu"])
def test_a_row_that_sees_no_key_gets_nothing(weights: str) -> None:
    layer = Attention(8, 6, weights=weights)
    out = layer(torch.randn(2, 3, 8), torch.randn(2, 4, 6), torch.zeros(2, 4).bool())
    torch.testing.assert_close(out, layer.out.bias.expand(2, 3, 8))


def test_relu_attention_takes_the_weights_of_softmax_attention() -> None:
    soft, relu = network(weights="softmax"), network()
    relu.load_state_dict(soft.state_dict())


# Changes of MobileDiffusion's table: what must get smaller, (parameters, multiply-adds).
SAVINGS = {
    "self-attention at the lowest resolution only": (
        {"self_attention": (False, False, True)},
        (True, True),
    ),
    "cross-attention at the lowest resolution only": (
        {"cross_attention": (False, False, True)},
        (True, True),
    ),
    "transformers at the lowest resolution": ({"transformers": (0, 0, 3)}, (False, True)),
    "shared keys and values": ({"shared_kv": True}, (True, True)),
    "narrower feed-forward parts": ({"expansion": 6}, (True, True)),
    "separable convolutions": ({"separable": True}, (True, True)),
    "fewer residual blocks": ({"depth": (1, 1, 1)}, (True, True)),
}


@pytest.mark.parametrize("name", SAVINGS)
def test_savings_save(name: str) -> None:
    changes, fewer = SAVINGS[name]
    before, after = cost(network()), cost(network(**changes))
    assert tuple(a < b for a, b in zip(after, before, strict=True)) == fewer


def test_the_outermost_convolutions_stay_dense() -> None:
    net = network(separable=True)
    assert isinstance(net.down[0].blocks[0].conv1, nn.Conv2d)
    assert isinstance(net.down[1].blocks[0].conv1, nn.Sequential)


def test_gates_differ_and_feed_forward_is_its_formula() -> None:
    layer, x = FeedForward(4, 6, "silu"), torch.randn(2, 3, 4)
    a, b = (x @ layer.enter.weight.T + layer.enter.bias).split(12, dim=-1)
    torch.testing.assert_close(layer(x), layer.leave(a * a.sigmoid() * b))


def test_output_is_zero_at_first_and_depends_on_all_it_is_told() -> None:
    torch.manual_seed(0)
    net = network(guided=True)
    x, level = torch.randn(2, 3, 16, 16), torch.zeros(2)
    text, mask = torch.randn(2, 5, 12), torch.ones(2, 5).bool()
    w = torch.ones(2)
    assert net(x, level, text, mask, w).abs().max() == 0
    wake(net)
    out = net(x, level, text, mask, w)
    others = [
        net(x, level + 1, text, mask, w),
        net(x, level, text.flip(1) + 1, mask, w),
        net(x, level, text, mask & (torch.arange(5) < 3), w),
        net(x, level, text, mask, 2 * w),
        net(x, level, guidance=w),
    ]
    assert all((out - other).abs().max() > 1e-3 for other in others)


def test_a_text_map_paints_the_text() -> None:
    torch.manual_seed(0)
    net = wake(network(text_map=True, cross_attention=(False,) * 3))
    nn.init.zeros_(net.pooled.weight)  # the map is the only way left
    x, level = torch.randn(2, 3, 16, 16), torch.zeros(2)
    text, mask = torch.randn(2, 5, 12), torch.arange(5).expand(2, 5) < 3
    out = net(x, level, text, mask)
    assert (out - net(x, level, text + 1, mask)).abs().max() > 1e-3
    torch.testing.assert_close(out, net(x, level, text[:, [2, 1, 0]]), rtol=1e-4, atol=1e-5)
    assert network(text_map=False).paint is None


def test_padding_and_other_rows_do_not_matter() -> None:
    torch.manual_seed(0)
    net = wake(network(weights="softmax")).double()
    x, level = torch.randn(2, 3, 16, 16).double(), torch.zeros(2)
    text, mask = torch.randn(2, 5, 12).double(), (torch.arange(5) < 3).expand(2, 5)
    out = net(x, level, text, mask)
    padded = text.masked_fill(~mask[:, :, None], 7.0)
    torch.testing.assert_close(net(x, level, padded, mask), out)
    torch.testing.assert_close(net(x, level, text[:, :3]), out)
    torch.testing.assert_close(net(x[:1], level[:1], text[:1], mask[:1]), out[:1])


WRONG = [
    ({"channels": (12, 24, 32)}, "channels must be multiples of 8 and of num_heads 4"),
    ({"depth": (1, 1)}, "depth must have 3 entries, like channels"),
    ({"transformers": (0, 0, -1)}, "transformers must be an integer >= 0"),
    ({"expansion": 5}, "expansion must be even, got 5"),
    ({"gate": "relu"}, "gate must be one of gelu, silu"),
    ({"weights": "tanh"}, "weights must be one of softmax, relu"),
    ({"patch": 3}, "sides that are multiples of 12"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_wrong_arguments_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**changes)


def test_wrong_conditions_are_refused() -> None:
    net, x, level = network(), torch.randn(2, 3, 16, 16), torch.zeros(2)
    with pytest.raises(ValueError, match=r"text must have shape \(batch, m, 12\)"):
        net(x, level, torch.randn(2, 5, 11))
    with pytest.raises(ValueError, match="mask must hold truth values"):
        net(x, level, torch.randn(2, 5, 12), torch.ones(2, 5))
    with pytest.raises(ValueError, match="guidance must be given to guided networks"):
        net(x, level, guidance=torch.ones(2))


def test_runs_on_meta() -> None:
    with torch.device("meta"):
        out = network()(torch.zeros(2, 3, 16, 16), torch.zeros(2), torch.zeros(2, 5, 12))
    assert out.shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": 8},
        {"shape": (3.0, 8, 8)},
        {"depth": 1},
        {"depth": (1.5,)},
        {"depth": (float("nan"),)},
        {"depth": ("x",)},
        {"self_attention": ("no",)},
        {"self_attention": True},
        {"shared_kv": "no"},
        {"text_map": 3},
    ],
    ids=str,
)
def test_arguments_of_other_kinds_are_named(wrong: dict) -> None:
    one = {"depth": (1,), "transformers": (1,), "self_attention": (True,)}
    arguments = {"shape": (3, 8, 8), "channels": (8,), **one, "cross_attention": (True,), **wrong}
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
        MobileUNet(text_dim=8, **arguments)
