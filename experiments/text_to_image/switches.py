"""The changes that make a U-Net mobile, each alone and all together: arXiv:2311.16567, table 1."""

from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks.timing import take_turns
from latent_ebm.networks import MobileUNet

SIZE: dict[str, Any] = {"channels": (32, 64, 128), "patch": 2}
REPEATS, ROWS = 40, 16
NETWORK = "--model.init_args.denoiser.init_args.network.init_args."
PLAIN: dict[str, Any] = {
    "depth": [2, 2, 2],
    "transformers": [1, 1, 1],
    "self_attention": [True, True, True],
    "cross_attention": [True, True, True],
    "shared_kv": False,
    "gate": "gelu",
    "expansion": 8,
    "separable": False,
    "text_map": True,
}
LOW, NOWHERE = [False, False, True], [False, False, False]
SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "transformers at the lowest resolution": {"transformers": [0, 1, 2]},
    "no self-attention at high resolutions": {"self_attention": LOW},
    "no attention at high resolutions": {"self_attention": LOW, "cross_attention": LOW},
    "no cross-attention": {"cross_attention": NOWHERE},
    "shared keys and values": {"shared_kv": True},
    "swish": {"gate": "silu"},
    "feed-forward 8 to 6": {"expansion": 6},
    "ReLU attention": {"weights": "relu"},
    "separable convolutions": {"separable": True},
    "half of the residual blocks": {"depth": [1, 1, 1]},
    "all": {
        "depth": [1, 1, 1],
        "transformers": [0, 1, 2],
        "self_attention": LOW,
        "shared_kv": True,
        "gate": "silu",
        "expansion": 6,
        "separable": True,
    },
    "no text map": {"text_map": False},
    "no text map, no cross-attention": {"text_map": False, "cross_attention": NOWHERE},
}


def stem(name: str) -> str:
    """The name of a change in names of results."""
    return name.replace(" ", "_")


def network(**changes: Any) -> MobileUNet:
    """The plain network at the size of the table, with ``changes``."""
    return MobileUNet((3, 16, 16), 128, **SIZE, **{**PLAIN, **changes}).eval()


def inputs(rows: int = 1) -> tuple[Tensor, ...]:
    """An image, a noise level, and a text of 16 tokens."""
    mask = torch.ones(rows, 16, dtype=torch.bool)
    return torch.randn(rows, 3, 16, 16), torch.zeros(rows), torch.randn(rows, 16, 128), mask


@torch.no_grad()
def costs() -> dict[str, dict[str, float]]:
    """Parameters, multiply-adds of an image, and milliseconds on one core, the median of calls
    that are interleaved with those of all other networks.
    """
    networks = {name: network(**changes) for name, changes in SWITCHES.items()}
    found: dict[str, dict[str, float]] = {}
    for name, net in networks.items():
        # fused attention is not counted
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            net(*inputs())
        params = sum(parameter.numel() for parameter in net.parameters())
        found[name] = {"parameters": params, "multiply-adds": counter.get_total_flops() / 2}
    x = inputs(ROWS)
    seconds = take_turns({name: partial(net, *x) for name, net in networks.items()}, REPEATS)
    return {
        name: {**entry, "ms": 1e3 * median(seconds[name]) / ROWS} for name, entry in found.items()
    }
