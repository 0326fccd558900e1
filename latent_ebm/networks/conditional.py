r"""Networks of latents with a condition c, for priors ``p(z|c)`` and likelihoods ``p(x|z, c)``.

An energy with one logit per class couples symbols with vectors (Pang & Wu 2021, arXiv:2108.11556):
``p(y, z) ~ p_0(z) exp(f_y(z))``. It is the prior ``p(z|y)`` of every class, the classifier
``p(y|z) = softmax f(z)``, and, if the class is unknown, the prior ``p(z) ~ p_0(z) sum_y
exp(f_y(z))``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.conditions import UNKNOWN, Condition, check_labels
from latent_ebm.networks.mlp import MLP
from samplers.checks import check_counts


class Conditional(Artefact):
    """A network ``(z, **condition)`` of latents z (batch, dim) and a condition with one entry per
    row. A condition that is left out is unknown.
    """

    def check(self, condition: Condition) -> None:
        """Raise ``ValueError`` for a ``condition`` that the network cannot take. It is checked
        once, when it is given.
        """


class ClassEnergy(Conditional):
    """``E(z, y) = -f_y(z)``, and ``-log sum_y exp(f_y(z))`` where the class y is unknown.

    The weight of each class in that sum is learnt only from rows whose class is unknown. Source:
    arXiv:2108.11556.

    Args:
        dim: The dimension of z.
        num_classes: The number of classes.
        hidden: The widths of the hidden layers.
        activation: See ``make_activation``.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        hidden: Sequence[int] = (200, 200),
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        check_counts(self, num_classes=num_classes)
        self.dim, self.num_classes = dim, num_classes
        self.hidden, self.activation = hidden, activation
        self.logits = MLP(dim, num_classes, hidden, activation)

    def check(self, condition: Condition) -> None:
        check_label(condition, self.num_classes)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Energies (batch,) of z (batch, dim) and its ``label`` (batch,), -1 where unknown."""
        logits = self.logits(z)
        marginal = -logits.logsumexp(1)
        if label is None:
            return marginal
        energy = -logits.gather(1, label.clamp(min=0)[:, None]).squeeze(1)
        return torch.where(label == UNKNOWN, marginal, energy)


class WithClass(Conditional):
    """``(z, label) -> network([z, e(label)])``: a vector per class is appended to the latent.

    Args:
        network: Takes dim + ``width`` entries per row.
        num_classes: The number of classes; an unknown class has a vector of its own.
        width: The length of these vectors.
    """

    def __init__(self, network: nn.Module, num_classes: int, width: int) -> None:
        super().__init__()
        check_counts(self, num_classes=num_classes, width=width)
        self.network, self.num_classes, self.width = network, num_classes, width
        self.classes = nn.Embedding(num_classes + 1, width)

    def check(self, condition: Condition) -> None:
        check_label(condition, self.num_classes)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The output of ``network`` for z (batch, dim) and its ``label`` (batch,), -1 where
        unknown.
        """
        if label is None:
            label = torch.full((len(z),), UNKNOWN, device=z.device)
        return self.network(torch.cat([z, self.classes(label - UNKNOWN)], 1))


def check_label(condition: Condition, num_classes: int) -> None:
    """Raise ``ValueError`` unless ``condition`` is a label of ``num_classes`` and nothing else."""
    if condition.keys() != {"label"}:
        raise ValueError(f"condition must be a label and nothing else, got {condition}")
    check_labels(condition["label"], num_classes)


class Told(nn.Module):
    """``network`` with its ``condition`` given: a function of z alone.

    Row i of z belongs to row ``i % rows`` of the condition, as for chains. Raises ``ValueError``
    unless z has a multiple of the condition's rows.
    """

    def __init__(self, network: nn.Module, condition: Condition) -> None:
        super().__init__()
        if isinstance(network, Conditional):
            network.check(condition)
        self.network, self.condition = network, condition

    @property
    def rows(self) -> int:
        """The number of rows of the condition."""
        return rows_of(self.condition)

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z, **of_chains(self.condition, len(z)))


def rows_of(condition: Condition) -> int:
    """The number of rows of a ``condition`` that is not empty."""
    return len(next(iter(condition.values())))


def of_chains(condition: Condition, num: int) -> Condition:
    """The ``condition`` of ``num`` chains, where chain i belongs to row ``i % rows``.

    Raises ``ValueError`` unless ``num`` is a multiple of the rows.
    """
    rows = rows_of(condition)
    if num == rows:
        return condition
    copies, rest = divmod(num, max(rows, 1))
    if rest or not copies:
        raise ValueError(f"z must have a multiple of the condition's {rows} rows, got {num}")
    return condition.repeat(copies)
