r"""Conditions: what a network receives besides its input, such as a class, a text or an image.

A condition c is a set of named tensors with one entry per row. A *null* belongs to every name: the
entry that means "unknown". A network that sees the null in some of the rows learns both
``p(x | c)`` and ``p(x)``, and classifier-free guidance needs both (Ho & Salimans 2022,
arXiv:2207.12598). A *conditioner* turns what a batch carries (labels, token ids, images) into what
the networks take as keywords.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from latent_ebm.artefacts import Artefact, Described
from samplers.checks import check_counts, check_kind, check_numbers
from samplers.run_checks import is_readable

UNKNOWN = -1  # the label of a row whose class is unknown


class Condition(Mapping[str, Tensor], Described):
    """Named tensors with one entry per row, as in ``network(x, level, **condition)``.

    ``Condition()`` is the empty condition: it has no names, and fits any number of rows.

    Args:
        tensors: The tensor (rows, \\*entry) of every name.
        null: The entry (\\*entry) of every name that means "unknown". A name without one can be
            neither dropped nor made unknown.

    Raises:
        ValueError: If the tensors differ in their number of rows, or a null does not have the
            shape of an entry of its name.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor] | None = None, null: Mapping[str, Tensor] | None = None
    ) -> None:
        self.tensors, self.null = dict(tensors or {}), dict(null or {})
        rows = {name: value.shape[:1] for name, value in self.items()}
        if len(set(rows.values())) > 1 or () in rows.values():
            got = ", ".join(f"{name} {tuple(value.shape)}" for name, value in self.items())
            raise ValueError(f"a condition must have one entry per row for every name, got {got}")
        for name, entry in self.null.items():
            if name not in self or entry.shape != self[name].shape[1:]:
                wanted = tuple(self[name].shape[1:]) if name in self else f"one of {list(self)}"
                raise ValueError(f"null {name} must be {wanted}, got shape {tuple(entry.shape)}")

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        """The number of names."""
        return len(self.tensors)

    def __repr__(self) -> str:
        return f"Condition({', '.join(f'{name} {tuple(v.shape)}' for name, v in self.items())})"

    def check_rows(self, num: int) -> None:
        """Raise ``ValueError`` unless every name has ``num`` rows."""
        for name, value in self.items():
            if len(value) != num:
                raise ValueError(f"condition {name} must have {num} rows, got {len(value)}")

    def rows(self, index: Tensor | slice | int) -> "Condition":
        """The rows at ``index``; for an integer the one entry, without the axis of rows."""
        return self._map(lambda value: value[index], lambda entry: entry)

    def to(self, device: torch.device | str) -> "Condition":
        """The same on ``device``; Lightning moves batches by this method."""
        return self._map(lambda value: value.to(device), lambda entry: entry.to(device))

    def repeat(self, copies: int) -> "Condition":
        """All rows in order, ``copies`` times over: rows of ``x.repeat(copies, 1, ...)``."""
        return self._map(lambda v: v.repeat(copies, *[1] * (v.ndim - 1)), lambda entry: entry)

    def drop(self, p: float, *, generator: torch.Generator | None = None) -> "Condition":
        """Every row becomes the null in all its names at once, with probability ``p``.

        Raises ``ValueError`` for a ``p`` outside [0, 1], or above 0 and a name without a null.
        """
        check_numbers(self, "in [0, 1]", p=p)
        if not self or p == 0:
            return self
        first = next(iter(self.values()))
        dropped = torch.rand(len(first), device=first.device, generator=generator) < p
        return self._masked(dropped)

    def unknown(self) -> "Condition":
        """As many rows, all of them unknown. Raises ``ValueError`` for a name without null."""
        if not self:
            return self
        first = next(iter(self.values()))
        return self._masked(torch.ones(len(first), dtype=torch.bool, device=first.device))

    def _masked(self, dropped: Tensor) -> "Condition":
        if missing := [name for name in self if name not in self.null]:
            raise ValueError(f"a condition must have a null for {missing[0]} to be unknown")
        shaped = {n: dropped.view(-1, *[1] * (v.ndim - 1)) for n, v in self.items()}
        values = {n: torch.where(shaped[n], self.null[n], value) for n, value in self.items()}
        return Condition(values, self.null)

    def _map(
        self, value: Callable[[Tensor], Tensor], entry: Callable[[Tensor], Tensor]
    ) -> "Condition":
        """Apply ``value`` to the tensors and ``entry`` to the nulls, without checks."""
        made = Condition.__new__(Condition)
        made.tensors = {name: value(v) for name, v in self.items()}
        made.null = {name: entry(v) for name, v in self.null.items()}
        return made


def label_condition(label: Tensor) -> Condition:
    """The condition ``label`` (rows,), integers, whose null is -1."""
    return Condition(
        {"label": label.long()}, {"label": torch.tensor(UNKNOWN, device=label.device)}
    )


def check_labels(label: Tensor, num_classes: int | None) -> None:
    """Raise ``ValueError`` for a label that is not one of -1, 0, ..., ``num_classes`` - 1 (None:
    without an end); of labels on a GPU, only the dtype is looked at.
    """
    if label.is_floating_point() or label.is_complex():
        raise ValueError(f"label must be integers, got {label.dtype}")
    if is_readable(label) and len(label):
        low, high = int(label.min()), int(label.max())
        if low < UNKNOWN or (num_classes is not None and high >= num_classes):
            end = "or more" if num_classes is None else f"to {num_classes - 1}"
            raise ValueError(f"label must lie in {UNKNOWN} {end}, got {low} to {high}")


class Batch(NamedTuple):
    """Rows ``x`` (n, \\*event), what is known of them, and where they stand in their data set.

    ``condition`` has n rows; in data with classes it is ``label`` (n,) int64, -1 where unknown.
    ``index`` (n,) int64 counts the rows of the data set, None if they are of none.
    """

    x: Tensor
    condition: Condition
    index: Tensor | None


BatchLike = Tensor | Batch | Sequence[Tensor]


def as_batch(batch: BatchLike) -> Batch:
    """A batch of what a user's loader yields: x alone, ``(x, label, index)``, its beginning, or a
    ``Batch``.

    A label must hold one integer per row; anything else in its place is ignored.
    """
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Tensor):
        return Batch(batch, Condition(), None)
    x, known = batch[0], batch[1] if len(batch) > 1 else None
    condition = known if isinstance(known, Condition) else Condition()
    if isinstance(known, Tensor) and known.shape == x.shape[:1] and not known.is_floating_point():
        condition = label_condition(known)
    return Batch(x, condition, batch[2] if len(batch) > 2 else None)


class Conditioner(Artefact, ABC):
    """Turns what a batch carries into what networks take as keywords, with a null for each."""

    @abstractmethod
    def forward(self, condition: Condition) -> Condition:
        """The condition of networks for the rows of ``condition``, as a batch carries it.

        Raises ``ValueError`` if ``condition`` lacks a name.
        """

    @abstractmethod
    def unknown(self, num: int) -> Condition:
        """The condition of networks for ``num`` rows that are unknown."""

    def request(self, num: int, condition: Condition | None) -> Condition:
        """The condition of networks for ``num`` samples, from ``condition`` as a batch carries it,
        on any device. None means unknown.

        Raises ``ValueError`` for anything but a condition of ``num`` rows.
        """
        check_counts("generate", least=0, num=num)
        if condition is None:
            return self.unknown(num)
        check_kind("generate", Condition, condition=condition)
        condition.check_rows(num)
        mine = next(chain(self.parameters(), self.buffers()), None)
        return self(condition if mine is None else condition.to(mine.device))

    def in_turn(self, num: int) -> Condition:
        """A default condition, as a batch carries it, for each of ``num`` samples.

        Raises ``ValueError`` if there is no list of conditions to choose from.
        """
        raise ValueError(
            f"condition must be given for samples of a rule with {type(self).__name__}, got none"
        )


class Unconditional(Conditioner):
    """Gives networks no condition, whatever a batch carries."""

    def forward(self, condition: Condition) -> Condition:
        return Condition()

    def unknown(self, num: int) -> Condition:
        return Condition()

    def request(self, num: int, condition: Condition | None) -> Condition:
        """Raises ``ValueError`` for a condition, which would be ignored."""
        check_counts("generate", least=0, num=num)
        check_unconditional(condition)
        return Condition()

    def in_turn(self, num: int) -> Condition:
        return Condition()


def check_unconditional(condition: Condition | None) -> None:
    """Raise ``ValueError`` for a condition, which would be ignored."""
    if condition is not None and len(condition):
        raise ValueError(
            f"condition must be left out for a rule without a conditioner, got {condition}"
        )


def conditioner_or_none(conditioner: Conditioner | None) -> Conditioner:
    """``conditioner``; ``Unconditional`` for None. Raises ``ValueError`` for anything else."""
    if conditioner is None:
        return Unconditional()
    check_kind("rule", Conditioner, conditioner=conditioner)
    return conditioner


class ClassLabels(Conditioner):
    """The ``label`` of every row, an integer: -1 where the class is unknown.

    Args:
        num_classes: The number of classes; null: any label from -1 on is allowed.

    Raises:
        ValueError: For a label that is not one of -1, 0, ..., ``num_classes`` - 1 (checked on the
            CPU alone), or a batch without labels.
    """

    null: Tensor

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        check_counts(self, num_classes=1 if num_classes is None else num_classes)
        self.num_classes = num_classes
        self.register_buffer("null", torch.tensor(UNKNOWN), persistent=False)

    def forward(self, condition: Condition) -> Condition:
        if "label" not in condition:
            raise ValueError(
                "batch must be (x, label, ...) with one integer per row for a conditional rule, "
                f"got {', '.join(condition) or 'x alone'}"
            )
        check_labels(condition["label"], self.num_classes)
        return label_condition(condition["label"])

    def unknown(self, num: int) -> Condition:
        return Condition({"label": self.null.expand(num)}, {"label": self.null})

    def in_turn(self, num: int) -> Condition:
        """Labels 0, 1, ..., 0, 1, ... (num,)."""
        if self.num_classes is None:
            raise ValueError(
                "num_classes of ClassLabels must be given for classes in turn, got None"
            )
        return label_condition(torch.arange(num, device=self.null.device) % self.num_classes)
