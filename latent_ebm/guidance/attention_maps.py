r"""Cross-attention maps: which pixels listen to which tokens of a text, read and written.

A map holds a weight for every head, pixel and token. Its columns say where in a picture a token
acts; maps of one prompt put into the sampling of another keep the layout of the picture
(prompt-to-prompt, Hertz et al. 2022, arXiv:2208.01626).

Networks of this library and of ``diffusers`` compute weights on their own only while somebody
watches them. Watchers may be nested: one outside sees the maps that those inside return, so
``with record(network) as maps, replace(network, kept, tokens):`` records replaced maps.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from latent_ebm.networks.attention import Attention, TransformerBlock, Watch
from samplers.checks import check_kind, is_whole

Maps = dict[str, list[Tensor]]  # by the name of a cross-attention; one map for each of its calls
PLAIN = ("AttnProcessor", "AttnProcessor2_0")  # processors of diffusers that do nothing special


@contextmanager
def record(network: nn.Module) -> Iterator[Maps]:
    """Within the context, keep the map of every call of every cross-attention of ``network``.

    Args:
        network: Any module that contains ``MobileUNet`` or a ``UNet2DConditionModel`` of
            ``diffusers``, such as a denoiser.

    Yields:
        The maps (batch, heads, pixels, tokens) in the order of the calls, by the name of the
        cross-attention in ``network``. Rows of a softmax sum to 1. Those of a ``SubjectUNet``
        are of the text alone, not of the tokens of a subject.

    Raises:
        ValueError: For a network without cross-attention, or with a processor of ``diffusers``
            that does more than attention.
    """
    maps: Maps = {}

    def keep(name: str) -> Watch:
        def watch(weights: Tensor) -> Tensor:
            maps[name].append(weights)
            return weights

        maps[name] = []
        return watch

    with watching(network, keep):
        yield maps


@contextmanager
def replace(
    network: nn.Module, maps: Mapping[str, Sequence[Tensor]], tokens: Sequence[int]
) -> Iterator[None]:
    """Within the context, ``network`` uses the recorded ``maps`` for all tokens but ``tokens``,
    which keep their own weights. Rows need not sum to 1 then.

    Args:
        network: The module whose maps were recorded.
        maps: What ``record`` yielded. The first call within the context gets the first map of
            every cross-attention, and so on.
        tokens: Places of the tokens that keep their own weights; -1 is the last one.

    Raises:
        ValueError: For maps of another network, of another shape, or of fewer calls; or for a
            token that there is not.
    """
    check_kind("replace", Mapping, maps=maps)
    check_places(tokens)
    rest = {name: iter(calls) for name, calls in maps.items()}

    def put(name: str) -> Watch:
        if name not in rest:
            raise ValueError(
                f"maps must hold every cross-attention of network, got none for {name}"
            )

        def watch(weights: Tensor) -> Tensor:
            kept = next(rest[name], None)
            if kept is None or kept.shape != weights.shape:
                got = "no more" if kept is None else f"shape {tuple(kept.shape)}"
                raise ValueError(
                    f"maps of {name} must have shape {tuple(weights.shape)} for every call, got "
                    f"{got}"
                )
            return torch.where(own(tokens, weights), weights, kept)

        return watch

    with watching(network, put):
        yield


def check_places(tokens: Sequence[int]) -> None:
    """Raise ``ValueError`` unless ``tokens`` are integers."""
    if isinstance(tokens, str) or not isinstance(tokens, Sequence):
        raise ValueError(f"tokens must be a list of places, got {tokens!r}")
    for token in tokens:
        if not is_whole(token):
            raise ValueError(f"tokens must be integers, got {token!r}")


def own(tokens: Sequence[int], weights: Tensor) -> Tensor:
    """Whether each token (m,) of ``weights`` (batch, heads, n, m) is one of ``tokens``."""
    num = weights.shape[-1]
    if wrong := [token for token in tokens if not -num <= token < num]:
        raise ValueError(f"tokens must be places among {num} tokens, got {wrong[0]}")
    mine = torch.zeros(num, dtype=torch.bool, device=weights.device)
    mine[list(tokens)] = True
    return mine


@contextmanager
def watching(network: nn.Module, watcher: Callable[[str], Watch]) -> Iterator[None]:
    """Within the context, every cross-attention of ``network`` asks the ``watcher`` of its name,
    and then the watchers outside.
    """
    check_kind("attention maps", nn.Module, network=network)
    found = cross_attentions(network)
    if not found:
        raise ValueError(
            "network must have cross-attention, as MobileUNet and UNet2DConditionModel of "
            f"diffusers have, got {type(network).__name__}"
        )
    watches = {name: watcher(name) for name in found}
    undo = [begin(module, watches[name]) for name, module in found.items()]
    try:
        yield
    finally:
        for end in undo:
            end()


def cross_attentions(network: nn.Module) -> dict[str, nn.Module]:
    """Every cross-attention in ``network``, by its name."""
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        if isinstance(module, TransformerBlock) and module.cross_attention is not None:
            found[f"{name}.cross_attention"] = module.cross_attention
        elif type(module).__module__.startswith("diffusers.") and getattr(
            module, "is_cross_attention", False
        ):
            check_processor(name, module)
            found[name] = module
    return found


def begin(module: nn.Module, watch: Watch) -> Callable[[], None]:
    """Let ``watch`` see the weights of ``module`` before others do. Returns what undoes this."""
    if isinstance(module, Attention):
        before = module.watch
        module.watch = watch if before is None else chained(watch, before)
        return lambda: setattr(module, "watch", before)
    foreign: Any = module  # of diffusers
    processor = foreign.processor
    outer = processor.watch if isinstance(processor, WatchedProcessor) else None
    foreign.processor = WatchedProcessor(watch if outer is None else chained(watch, outer))
    return lambda: setattr(foreign, "processor", processor)


def chained(first: Watch, second: Watch) -> Watch:
    return lambda weights: second(first(weights))


class WatchedProcessor:
    """The plain attention processor of ``diffusers``, whose weights pass through ``watch``."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def __call__(self, attn: Any, x: Tensor, *more: Any, **named: Any) -> Tensor:
        from diffusers.models.attention_processor import AttnProcessor

        find = attn.get_attention_scores

        def watched(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
            weights = find(query, key, mask)
            return self.watch(weights.unflatten(0, (-1, attn.heads))).flatten(0, 1)

        attn.get_attention_scores = watched
        try:
            return AttnProcessor()(attn, x, *more, **named)
        finally:
            del attn.get_attention_scores


def check_processor(name: str, module: nn.Module) -> None:
    """Raise ``ValueError`` unless the ``module`` of ``diffusers`` has a plain processor."""
    kind = type(module.processor).__name__
    if kind not in (*PLAIN, WatchedProcessor.__name__):
        raise ValueError(f"{name} must have one of the processors {', '.join(PLAIN)}, got {kind}")
