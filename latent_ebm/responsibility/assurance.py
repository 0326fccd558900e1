r"""Assurance sets: labelled prompts or images that judge filters, and that training cannot read.

A set that has been trained on says nothing about what comes next. An ``AssuranceSet`` therefore
gives out rates and no rows: it cannot be indexed, walked through, copied, pickled or saved, so
that no data loader takes it; and it refuses to judge while anything is being trained. No training
code may import this package, which a test of the imports enforces. This guards against accidents,
not against somebody who reads the memory of the process.
"""

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Generic, NamedTuple, NoReturn, TypeVar

from latent_ebm.metrics import Share, share_of
from latent_ebm.responsibility.filters import Decision, check_decision

T = TypeVar("T")
TRAINING = {"fit", "partial_fit", "training_step", "configure_optimizers", "train_dataloader"}
TRAINERS = ("lightning.", "pytorch_lightning.", "latent_ebm.learning.", "latent_ebm.distillation.")


class Rates(NamedTuple):
    """How a filter fails: the share of violations that pass, and of harmless inputs that are
    refused, each with its exact confidence interval.
    """

    violation: Share
    over_refusal: Share


class AssuranceSet(Generic[T]):
    """Held-out inputs with labels, to judge filters with.

    Args:
        inputs: Prompts, or whatever the filter takes.
        violates: Whether each of them violates the policy; both kinds must occur.

    Raises:
        RuntimeError: If it is made while something is trained.
        ValueError: If the lengths differ, a label is no truth value, or one kind is missing.
    """

    __slots__ = ("__inputs", "__violates")

    def __init__(self, inputs: Sequence[T], violates: Sequence[bool]) -> None:
        check_no_training()
        if len(inputs) != len(violates):
            raise ValueError(
                f"violates must have one entry per input, {len(inputs)}, got {len(violates)}"
            )
        if odd := [label for label in violates if label not in (False, True)]:
            raise ValueError(f"violates must hold True and False alone, got {odd[0]!r:.100}")
        if {bool(label) for label in violates} != {False, True}:
            raise ValueError("violates must hold both True and False, so that both rates exist")
        self.__inputs, self.__violates = tuple(inputs), tuple(map(bool, violates))

    def rates(self, judge: Callable[[T], Decision], confidence: float = 0.95) -> Rates:
        """Violation and over-refusal rate of ``judge``, which maps one input to a ``Decision``,
        with intervals of Clopper and Pearson.

        Raises ``RuntimeError`` while something is trained, and ``ValueError`` for a
        ``confidence`` outside (0, 1) or if ``judge`` returns no decisions.
        """
        check_no_training()
        allowed = [check_decision(judge(entry)).allowed for entry in self.__inputs]
        bad = [a for a, violates in zip(allowed, self.__violates, strict=True) if violates]
        good = [a for a, violates in zip(allowed, self.__violates, strict=True) if not violates]
        return Rates(
            share_of(sum(bad), len(bad), confidence, exact=True),
            share_of(len(good) - sum(good), len(good), confidence, exact=True),
        )

    def __iter__(self) -> NoReturn:
        raise TypeError("an AssuranceSet gives out rates and no rows; call rates(filter)")

    def __getitem__(self, index: object) -> NoReturn:
        raise TypeError("an AssuranceSet gives out rates and no rows; call rates(filter)")

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AssuranceSet cannot be copied, pickled or saved")

    def __repr__(self) -> str:
        return f"AssuranceSet of {len(self.__inputs)} inputs, {sum(self.__violates)} violations"


def check_no_training() -> None:
    """Raise ``RuntimeError`` if a function that trains is among those that are running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name in TRAINING or f"{module}.".startswith(TRAINERS):
            raise RuntimeError(
                f"an AssuranceSet must not be used in training, got a call inside "
                f"{module}.{frame.f_code.co_name}"
            )
        frame = frame.f_back
