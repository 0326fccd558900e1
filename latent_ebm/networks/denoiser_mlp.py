r"""A perceptron for diffusion on vectors and small events, ``network(x, noise_level, label)``."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.networks.conditioning import Conditioning
from latent_ebm.networks.mlp import make_activation, make_layers
from samplers.checks import as_shape, check_counts

CONDITION_DIM = 64


class DenoiserMLP(Artefact):
    """Maps events (batch, \\*shape), a noise level (batch,) and a label (batch,) to events (batch,
    \\*shape).

    Every hidden layer adds a linear map of the condition before its activation. A label of -1
    means that the class is unknown; without labels all classes are unknown.

    Args:
        shape: The shape of an event; an integer for vectors.
        hidden: The widths of the hidden layers, at least one.
        num_classes: The number of classes; null: the network takes no labels.
        activation: "gelu", "leaky_relu", "silu" or "tanh".

    Raises:
        ValueError: Without a hidden layer.
    """

    def __init__(
        self,
        shape: int | Sequence[int],
        hidden: Sequence[int] = (128, 128, 128),
        num_classes: int | None = None,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.shape = as_shape(self, shape=shape)
        check_counts(self, **{"the number of hidden layers": len(hidden)})
        self.hidden, self.num_classes, self.activation = tuple(hidden), num_classes, activation
        self.condition = Conditioning(CONDITION_DIM, num_classes)
        self.bend, dim = make_activation(activation), math.prod(self.shape)
        self.layers = make_layers(dim, hidden, dim)
        self.shifts = nn.ModuleList(
            nn.Linear(CONDITION_DIM, width, bias=False) for width in hidden
        )

    def forward(self, x: Tensor, noise_level: Tensor, label: Tensor | None = None) -> Tensor:
        """Events (batch, \\*shape). Raises ``ValueError`` for labels if the network has no
        classes.
        """
        condition = self.condition(noise_level.to(x.dtype), label)
        *hidden, last = self.layers
        h = x.flatten(1)
        for layer, shift in zip(hidden, self.shifts, strict=True):
            h = self.bend(layer(h) + shift(condition))
        return last(h).view_as(x)
