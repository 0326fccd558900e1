r"""Attention over sets of vectors, and the transformer block of text-to-image U-Nets.

With queries ``q = x W_q``, keys ``k = y W_k`` and values ``v = y W_v``, attention returns
``a(q k^T / sqrt(d)) v``, where d is the dimension of a head and ``y = x`` (self-attention) or a
context such as the tokens of a text (cross-attention). ``a`` is the softmax over keys (Vaswani et
al. 2017, arXiv:1706.03762), or ``relu / m`` over m keys, which needs no exponential and no sum
over keys (Wortsman et al. 2023, arXiv:2309.08586). Both have the same parameters, so a network
trained with one can be fine-tuned with the other.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention, silu

from samplers.checks import check_counts

Weights = Literal["softmax", "relu"]
Gate = Literal["gelu", "silu"]
Watch = Callable[[Tensor], Tensor]  # weights (batch, heads, n, m) -> those that are used


class Attention(nn.Module):
    """Multi-head attention from ``x`` (batch, n, dim) to a context (batch, m, context_dim).

    Weights are not kept anywhere, and fused with the sum over values where PyTorch can. While
    ``watch`` is set, as ``latent_ebm.guidance.attention_maps`` does, they are computed on their
    own, and what ``watch`` returns takes their place.

    Args:
        dim: Dimension of x, a multiple of ``num_heads``.
        context_dim: Dimension of the context. None for self-attention, where it is x.
        num_heads: Number of heads.
        shared_kv: Whether keys and values share one projection (MobileDiffusion,
            arXiv:2311.16567), which saves a quarter of the parameters.
        weights: "softmax" or "relu".

    Raises:
        ValueError: If ``dim`` is not a multiple of ``num_heads``, or ``weights`` is unknown.
    """

    watch: Watch | None = None

    def __init__(
        self,
        dim: int,
        context_dim: int | None = None,
        num_heads: int = 4,
        shared_kv: bool = False,
        weights: Weights = "softmax",
    ) -> None:
        super().__init__()
        check_counts(self, dim=dim, context_dim=context_dim or dim, num_heads=num_heads)
        if dim % num_heads:
            raise ValueError(f"dim must be a multiple of num_heads {num_heads}, got {dim}")
        if weights not in get_args(Weights):
            raise ValueError(f"weights must be one of softmax, relu, got {weights!r}")
        self.num_heads, self.weights = num_heads, weights
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(context_dim or dim, dim, bias=False)
        self.value = None if shared_kv else nn.Linear(context_dim or dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Vectors like ``x`` (batch, n, dim).

        ``mask`` (batch, m) is True for keys that may be seen. A row that sees no key gets zeros
        before the last projection.
        """
        return self.attend(x, context, mask, self.watch)

    def attend(
        self,
        x: Tensor,
        context: Tensor | None,
        mask: Tensor | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """As ``forward``; the weights pass through ``watch``."""
        y = x if context is None else context
        q, k = self.heads(self.query(x)), self.heads(self.key(y))
        v = k if self.value is None else self.heads(self.value(y))
        seen = None if mask is None else mask[:, None, None]
        if watch is None:
            attend = softmax_attention if self.weights == "softmax" else relu_attention
            found = attend(q, k, v, seen)
        else:
            find = softmax_weights if self.weights == "softmax" else relu_weights
            found = watch(find(q, k, seen)) @ v
        return self.out(rearrange(found, "b h n d -> b n (h d)"))

    def heads(self, x: Tensor) -> Tensor:
        """Vectors (batch, n, dim) cut into heads (batch, heads, n, d)."""
        return rearrange(x, "b n (h d) -> b h n d", h=self.num_heads)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` (batch, heads, n, d) over keys that are ``seen``
    (batch, 1, 1, m)."""
    if seen is None:
        return scaled_dot_product_attention(q, k, v)
    any_seen = seen.any(-1, keepdim=True)  # a softmax over no keys would be NaN
    return scaled_dot_product_attention(q, k, v, seen | ~any_seen) * any_seen


def relu_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    """``relu(q k^T / sqrt(d)) v / m`` (batch, heads, n, d) over the m keys that are ``seen``
    (batch, 1, 1, m)."""
    weights = (q @ k.mT / q.shape[-1] ** 0.5).relu()
    if seen is None:
        return weights @ v / k.shape[-2]
    return (weights * seen) @ v / seen.sum(-1, keepdim=True).clamp(min=1)


def softmax_weights(q: Tensor, k: Tensor, seen: Tensor | None) -> Tensor:
    """The weights (batch, heads, n, m) of ``softmax_attention``."""
    logits = q @ k.mT / q.shape[-1] ** 0.5
    if seen is None:
        return logits.softmax(-1)
    any_seen = seen.any(-1, keepdim=True)
    return logits.masked_fill(~seen & any_seen, -torch.inf).softmax(-1) * any_seen


def relu_weights(q: Tensor, k: Tensor, seen: Tensor | None) -> Tensor:
    """The weights (batch, heads, n, m) of ``relu_attention``."""
    weights = (q @ k.mT / q.shape[-1] ** 0.5).relu()
    if seen is None:
        return weights / k.shape[-2]
    return weights * seen / seen.sum(-1, keepdim=True).clamp(min=1)


class FeedForward(nn.Module):
    """``W_2 (g(a) * b)``, ``(a, b) = W_1 x``: a gated perceptron for every vector (batch, n, dim).

    Source: Shazeer 2020, arXiv:2002.05202.

    Args:
        dim: The dimension of the vectors.
        expansion: The width of ``W_1 x`` in multiples of ``dim``.
        gate: g, "gelu" or "silu"; "silu" is also exact in half precision.

    Raises:
        ValueError: For an unknown ``gate``, or an ``expansion`` that is not an even integer.
    """

    def __init__(self, dim: int, expansion: int = 8, gate: Gate = "gelu") -> None:
        super().__init__()
        check_counts(self, dim=dim, expansion=expansion)
        if gate not in get_args(Gate):
            raise ValueError(f"gate must be one of gelu, silu, got {gate!r}")
        if expansion % 2:
            raise ValueError(f"expansion must be even, got {expansion}")
        self.gate = gate
        self.enter = nn.Linear(dim, expansion * dim)
        self.leave = nn.Linear(expansion * dim // 2, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors like ``x`` (batch, n, dim)."""
        a, b = self.enter(x).chunk(2, dim=-1)
        return self.leave((gelu(a) if self.gate == "gelu" else silu(a)) * b)


class Gated(NamedTuple):
    """A context ``tokens`` (batch, m, dim) of cross-attention, whose part is multiplied by
    ``gate``. Queries are told where they stand: to n of them, ``places[n]`` (n, dim) are added.
    """

    tokens: Tensor
    gate: Tensor
    places: Mapping[int, Tensor]


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and a feed-forward part, each added to normalised vectors.

    ``self_attention`` or ``cross_attention`` may be None, and is then left out.
    """

    def __init__(
        self,
        dim: int,
        self_attention: Attention | None,
        cross_attention: Attention | None,
        feed_forward: FeedForward,
    ) -> None:
        super().__init__()
        self.self_attention, self.cross_attention = self_attention, cross_attention
        self.feed_forward = feed_forward
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self,
        x: Tensor,
        context: Tensor | None,
        mask: Tensor | None,
        second: Gated | None = None,
    ) -> Tensor:
        """Vectors like ``x`` (batch, n, dim).

        Cross-attention to the ``context`` (batch, m, d) sees what ``mask`` (batch, m) shows, and
        one to the ``second`` context is added, by the same projections. A context that is None is
        left out.
        """
        if self.self_attention is not None:
            x = x + self.self_attention(self.norms[0](x))
        if self.cross_attention is not None:
            query = self.norms[1](x)
            if context is not None:
                x = x + self.cross_attention(query, context, mask)
            if second is not None:
                placed = query + second.places[x.shape[1]]
                x = x + second.gate * self.cross_attention.attend(placed, second.tokens)
        return x + self.feed_forward(self.norms[2](x))


def pool(text: Tensor, mask: Tensor | None) -> Tensor:
    """Mean (batch, dim) of the tokens (batch, m, dim) that ``mask`` (batch, m) shows."""
    if mask is None:
        return text.mean(1)
    shown = mask[:, :, None].to(text.dtype)
    return (text * shown).sum(1) / shown.sum(1).clamp(min=1)


def check_text(text: Tensor, mask: Tensor | None, dim: int) -> None:
    """Raise ``ValueError`` unless ``text`` is (batch, m, dim) and ``mask`` boolean (batch, m)."""
    if text.ndim != 3 or text.shape[2] != dim:
        raise ValueError(f"text must have shape (batch, m, {dim}), got {tuple(text.shape)}")
    if mask is not None and (mask.shape != text.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(
            f"mask must hold truth values of shape {tuple(text.shape[:2])}, got {mask.dtype} of "
            f"shape {tuple(mask.shape)}"
        )
