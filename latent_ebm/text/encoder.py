r"""Prompts as conditions of networks: one vector per token, and a mask of the tokens that count.

Tokens become vectors, to which a vector of their position is added, and a few transformer layers
let every token see the others (Vaswani et al. 2017, arXiv:1706.03762). Padding is not seen unless
one asks for it, so that the vectors of a prompt do not depend on how many padding tokens follow.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.conditions import Condition, Conditioner
from latent_ebm.networks.attention import Attention, FeedForward
from latent_ebm.text.tokenizer import Tokenizer
from samplers.checks import check_counts, check_kind
from samplers.run_checks import is_readable

# Standard deviation of untrained vectors. A rare word is seen in few updates, each of which moves
# an entry by about the learning rate: small vectors can be turned round by these.
INIT_STD = 0.01


class TextEncoder(Artefact, ABC):
    """Maps ids (n, m) of its ``tokenizer`` to vectors (n, m, ``dim``) and a mask (n, m)."""

    tokenizer: Tokenizer
    dim: int

    @abstractmethod
    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (n, m, dim) of ``tokens`` (n, m), and a mask (n, m), True for what is seen."""


class TextTransformer(TextEncoder):
    """Embeddings of tokens and positions, and transformer layers, trained with the denoiser.

    Args:
        tokenizer: What turns prompts into ids.
        dim: Dimension of a vector, a multiple of ``num_heads``.
        depth: Number of transformer layers.
        num_heads: Number of heads of their attention.
        expansion: Width of their feed-forward parts in multiples of ``dim``, an even number.
        table: Vectors (num_tokens, any dimension) of the tokens that are known beforehand. They
            are held fixed, and a learned linear map follows. None: vectors are learned.
        show_padding: Whether all rows are shown to the network, and padding to the layers, as
            Stable Diffusion does. Otherwise neither sees padding.

    Raises:
        ValueError: For numbers that break these rules, or a table of another number of tokens.
    """

    table: Tensor | None

    def __init__(
        self,
        tokenizer: Tokenizer,
        dim: int = 128,
        depth: int = 1,
        num_heads: int = 4,
        expansion: int = 4,
        table: Tensor | None = None,
        show_padding: bool = False,
    ) -> None:
        super().__init__()
        check_counts(self, dim=dim, depth=depth)
        check_kind(self, Tokenizer, tokenizer=tokenizer)
        check_kind(self, bool, show_padding=show_padding)
        self.tokenizer, self.dim, self.depth = tokenizer, dim, depth
        self.num_heads, self.expansion, self.show_padding = num_heads, expansion, show_padding
        if table is not None:
            check_table(table, tokenizer.num_tokens)
        self.register_buffer("table", table)
        self.embedding = token_embedding(tokenizer.num_tokens, dim, table)
        self.position = nn.Parameter(INIT_STD * torch.randn(tokenizer.max_tokens, dim))
        self.layers = nn.ModuleList(TextLayer(dim, num_heads, expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (n, m, dim) of ``tokens`` (n, m), and the mask (n, m) of those that are no
        padding, or with ``show_padding`` of all.

        Raises ``ValueError`` for other shapes than (n, m <= max_tokens), or ids out of range
        (not looked at while a graph is made).
        """
        check_tokens(tokens, self.tokenizer)
        mask = self.tokenizer.shown(tokens) | self.show_padding
        known = tokens if self.table is None else self.table[tokens].to(self.position)
        text = self.embedding(known) + self.position[: tokens.shape[1]]
        for layer in self.layers:
            text = layer(text, mask)
        return self.norm(text), mask


class TextLayer(nn.Module):
    """Self-attention to the tokens that ``mask`` shows, and a feed-forward part, each added to
    normalised vectors.
    """

    def __init__(self, dim: int, num_heads: int, expansion: int) -> None:
        super().__init__()
        self.attention = Attention(dim, num_heads=num_heads)
        self.feed_forward = FeedForward(dim, expansion)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Vectors like ``x`` (n, m, dim), for a ``mask`` (n, m)."""
        x = x + self.attention(self.norms[0](x), mask=mask)
        return x + self.feed_forward(self.norms[1](x))


class TextConditioner(Conditioner):
    """Gives networks the ``text`` (n, m, dim) of a row and its ``mask`` (n, m).

    A batch carries ``tokens`` (n, m), which ``tokens`` makes from prompts once, before training.
    The null is the encoded empty prompt. The encoder is trained together with the network, unless
    its parameters are frozen.

    Args:
        encoder: What turns tokens into vectors.
    """

    empty: Tensor

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        check_kind(self, TextEncoder, encoder=encoder)
        self.encoder = encoder
        self.register_buffer("empty", encoder.tokenizer([""])[0], persistent=False)

    def forward(self, condition: Condition) -> Condition:
        """The ``text`` and ``mask`` of ``tokens`` (n, m). Raises ``ValueError`` without these."""
        if "tokens" not in condition:
            raise ValueError(
                f"a batch must carry tokens for a text-conditional network, got {condition}"
            )
        tokens = condition["tokens"]
        check_tokens(tokens, self.encoder.tokenizer)
        text, mask = self.encoder(torch.cat([tokens, self.empty[None, : tokens.shape[1]]]))
        return Condition(
            {"text": text[:-1], "mask": mask[:-1]}, {"text": text[-1], "mask": mask[-1]}
        )

    def unknown(self, num: int) -> Condition:
        text, mask = self.encoder(self.empty[None])
        null = {"text": text[0], "mask": mask[0]}
        return Condition(
            {name: entry.expand(num, *entry.shape) for name, entry in null.items()}, null
        )

    def in_turn(self, num: int) -> Condition:
        """Raises ``ValueError``: there is no list of prompts to choose from."""
        raise ValueError(
            "prompts must be given for samples of a model of texts, as by --prompt TEXT of "
            "latent-ebm sample, got none"
        )

    def tokens(self, prompts: Sequence[str], *, strict: bool = False) -> Condition:
        """What a batch carries for ``prompts``: ``tokens`` (n, m); the null is the empty prompt.

        Raises ``ValueError`` for prompts that the tokenizer refuses; with ``strict`` these are
        also those of unknown words.
        """
        with self.empty.device:
            ids = self.encoder.tokenizer(prompts, strict=strict)
        return Condition({"tokens": ids}, {"tokens": self.empty})

    def encode(self, prompts: Sequence[str], *, strict: bool = False) -> Condition:
        """The condition of networks for ``prompts``: ``text`` (n, m, dim) and ``mask`` (n, m).

        Arguments and errors are those of ``tokens``.
        """
        return self(self.tokens(prompts, strict=strict))


def token_embedding(num_tokens: int, dim: int, table: Tensor | None) -> nn.Module:
    """Learned vectors of tokens; a learned map of those of a ``table``, if there is one."""
    if table is not None:
        return nn.Linear(table.shape[1], dim)
    embedding = nn.Embedding(num_tokens, dim)
    nn.init.normal_(embedding.weight, std=INIT_STD)
    return embedding


def check_table(table: Tensor, num: int) -> None:
    """Raise ``ValueError`` unless ``table`` holds finite vectors (num, any dimension)."""
    check_kind("TextTransformer", Tensor, table=table)
    if table.shape[:-1] != (num,) or table.numel() == 0:
        raise ValueError(f"table must have shape ({num}, dimension), got {tuple(table.shape)}")
    if not table.is_floating_point():
        raise ValueError(f"table must hold floating-point numbers, got {table.dtype}")
    if is_readable(table) and not bool(table.isfinite().all()):
        raise ValueError("table must be finite, got NaN or infinity")


def check_tokens(tokens: Tensor, tokenizer: Tokenizer) -> None:
    """Raise ``ValueError`` unless ``tokens`` are ids (n, m) of ``tokenizer``."""
    check_kind("text encoder", Tensor, tokens=tokens)
    whole = tokens.dtype in (torch.int32, torch.int64)
    if tokens.ndim != 2 or tokens.shape[1] > tokenizer.max_tokens or not whole:
        raise ValueError(
            f"tokens must be integers of shape (n, at most {tokenizer.max_tokens}), got "
            f"{tokens.dtype} of shape {tuple(tokens.shape)}"
        )
    if is_readable(tokens) and tokens.numel():
        low, high = torch.stack(tokens.aminmax()).tolist()
        if not 0 <= low <= high < tokenizer.num_tokens:
            raise ValueError(
                f"tokens must lie in 0 to {tokenizer.num_tokens - 1}, got {low} to {high}"
            )
