"""Targets whose value is unknown: all that is known of them is where their density rises."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NoReturn

from torch import Tensor


class Score(ABC):
    """A target known by its score ``grad log p`` alone, as in diffusion models, for samplers that
    need no value: ``Langevin``, ``UnderdampedLangevin``, ``GradientFlow``.

    Where a state holds the log-density it then holds zeros. Samplers with a Metropolis test, which
    compares values, refuse it, as does all else that needs a log-density.
    """

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """``grad log p``, like ``x`` (chains, \\*event)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Raise ``ValueError``."""
        self.refuse()

    def refuse(self) -> NoReturn:
        """Raise ``ValueError`` where the value is asked for."""
        raise ValueError(
            f"log_density must have a value, got {type(self).__name__}, which is known by its "
            "gradient alone: use a sampler without a Metropolis test, as Langevin"
        )

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros (chains,) in place of the value, and the gradient, like ``x``."""
        return x.new_zeros(len(x)), self.gradient(x)

    def workspace(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The gradient as a function of positions shaped like ``x``."""
        return self.gradient

    def settled(self) -> "Score":
        """The target itself."""
        return self
