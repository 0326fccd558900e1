r"""Whom does a generator show when the prompt does not say? An audit of representation.

Prompts that name no attribute ("a nurse", not "a man who is a nurse") are drawn several times, and
a classifier that you bring tells the category of each image. The pooled distribution says whom the
generator shows on the whole. It hides *one-category prompts*: half of the prompts all women and
half all men give a balanced total. Their share is therefore reported too (Imagen 3,
arXiv:2408.07009).

All intervals speak of the prompts of the audit, drawn again. They say nothing about other prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latent_ebm.metrics.intervals import Interval, Share, basic_interval, share_of
from latent_ebm.text.tokenizer import check_list, split_words
from samplers.checks import check_counts, check_numbers

Generate = Callable[[Sequence[str]], Tensor]  # prompts -> one image each (n, C, H, W)
Classify = Callable[[Tensor], Tensor]  # images -> categories (n,) or probabilities (n, K)
MAX_CONDITION = 100.0  # of a confusion matrix
DISTRIBUTION_ERROR = 1e-4


@dataclass(frozen=True)
class Representation:
    """What an audit has counted.

    Args:
        prompts: The prompts.
        categories: Names of the categories.
        counts: Number of images (prompts, categories) of every prompt in every category, int64.

    Raises:
        ValueError: If ``counts`` has another shape or a prompt has no image.
    """

    prompts: Sequence[str]
    categories: Sequence[str]
    counts: Tensor

    def __post_init__(self) -> None:
        check_names(self.categories)
        shape = (len(self.prompts), len(self.categories))
        if self.counts.shape != shape or self.counts.is_floating_point():
            raise ValueError(
                f"counts must be integers of shape {shape}, got {self.counts.dtype} of "
                f"{tuple(self.counts.shape)}"
            )
        if not self.prompts or bool((self.counts < 0).any() | (self.counts.sum(1) == 0).any()):
            raise ValueError("counts must be non-negative, with an image or more of every prompt")

    @property
    def pooled(self) -> Tensor:
        """Share (categories,) of the images in every category, float64."""
        return self.counts.sum(0).double() / self.counts.sum()

    def shares(self, confidence: float = 0.95, exact: bool = False) -> dict[str, Share]:
        """The share of images in each category, with the interval of Wilson or the ``exact`` one
        of Clopper and Pearson. Where prompts differ, both are wider than they need be.
        """
        total = int(self.counts.sum())
        hits = self.counts.sum(0).tolist()
        intervals = [share_of(num, total, confidence, exact) for num in hits]
        return dict(zip(self.categories, intervals, strict=True))

    def one_category(self, confidence: float = 0.95) -> Share:
        """The share of prompts whose images are all in one category, with the interval of Clopper
        and Pearson.
        """
        alone = int(((self.counts > 0).sum(1) == 1).sum())
        return share_of(alone, len(self.prompts), confidence, exact=True)

    def one_category_by_chance(self) -> float:
        """The share of one-category prompts to expect if every prompt had the pooled distribution:
        the mean of ``sum_k p_k^n`` over prompts of n images.
        """
        return float((self.pooled ** self.counts.sum(1, keepdim=True)).sum(1).mean())

    def distance(
        self,
        target: Mapping[str, float],
        confidence: float = 0.95,
        num_resamples: int = 2000,
        *,
        generator: torch.Generator | None = None,
    ) -> Interval:
        """Total variation ``sum_k |p_k - target_k| / 2`` between the pooled distribution and the
        ``target`` that you declare: the share of images that would have to change category.

        The true distance differs from the estimate by at most the distance between the pooled
        distribution and the true one. The interval allows for that much, as estimated by a
        bootstrap that draws the images of every prompt again. It covers about ``confidence``,
        also where the target is met or a share of it is, where other bootstrap intervals fail.

        Raises:
            ValueError: If ``target`` does not have a share of every category, with sum 1.
        """
        goal = check_target(target, self.categories).to(self.counts.device)
        errors = variation(self._resampled(num_resamples, confidence, generator), self.pooled)
        reach, estimate = float(errors.quantile(confidence)), float(variation(self.pooled, goal))
        return Interval(estimate, max(0.0, estimate - reach), min(1.0, estimate + reach))

    def corrected(
        self,
        confusion: Tensor,
        confidence: float = 0.95,
        num_resamples: int = 2000,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Interval]:
        """The shares that were seen through a classifier with known mistakes: the solution p of
        ``sum_i p_i confusion[i, j] = pooled[j]``.

        It is unbiased if the classifier makes the same mistakes on these images as where
        ``confusion`` was measured, and then a share may leave [0, 1] by chance. Intervals are
        those of the basic bootstrap. They take ``confusion`` as exact, and grow with its condition
        number: a classifier near chance leaves nothing to correct, and is refused.

        Args:
            confusion: Probability (categories, categories) of each category that the classifier
                reports (columns) given the true one (rows).
            confidence: Coverage of the interval, in (0, 1).
            num_resamples: Number of bootstrap samples.
            generator: The random stream.

        Raises:
            ValueError: If the rows are no distributions, or the condition number exceeds 100.
        """
        matrix = check_confusion(confusion, len(self.categories)).to(self.counts.device)
        pooled = self._resampled(num_resamples, confidence, generator)
        resampled = torch.linalg.solve(matrix.T, pooled.T)
        shares = torch.linalg.solve(matrix.T, self.pooled).tolist()
        return {
            name: basic_interval(share, row, confidence)
            for name, share, row in zip(self.categories, shares, resampled, strict=True)
        }

    def _resampled(self, num: int, confidence: float, generator: torch.Generator | None) -> Tensor:
        """Pooled distributions (num, categories) of images that are drawn again for every prompt:
        multinomial counts, as a chain of binomial ones.

        Counts of n images, drawn again by their own shares, vary by the share (n - 1) / n of what
        they should, for which their deviations make up. A single image is drawn by the pooled
        distribution: this is wide enough for any distribution of its own.
        """
        check_counts(self, num_resamples=num)
        check_numbers(self, "in (0, 1)", confidence=confidence)
        size = self.counts.sum(1, dtype=torch.float64)
        shares = torch.where(size[:, None] > 1, self.counts / size[:, None], self.pooled)
        scale = (size / (size - 1).clamp_min(1)).sqrt()
        left, tail, moved = size.expand(num, -1), torch.ones_like(size), []
        for share in shares.T:
            chance = torch.where(share > 0, share / tail, 0).clamp(0, 1).expand(num, -1)
            drawn = torch.binomial(left, chance, generator=generator)
            moved.append((drawn - size * share) @ scale)
            left, tail = left - drawn, tail - share
        return self.pooled + torch.stack(moved, 1) / size.sum()


def audit_representation(
    generate: Generate,
    prompts: Sequence[str],
    classify: Classify,
    categories: Sequence[str],
    num: int = 10,
) -> Representation:
    """Draw every prompt ``num`` times and count the categories of the images.

    Args:
        generate: Maps a list of prompts to one image each, (n, C, H, W).
        prompts: Prompts that name none of the categories.
        classify: Maps images to numbers of categories (n,), integers, or to probabilities (n, K),
            of which the greatest counts. Its mistakes become those of the audit: see
            ``Representation.corrected``.
        categories: Names of the categories.
        num: Number of images of a prompt.

    Raises:
        ValueError: If a prompt names a category, or what the callables return does not fit.
    """
    check_list("prompts", prompts)
    check_names(categories)
    check_counts("audit_representation", num=num)
    check_generic(prompts, categories)
    rows = [
        category_counts(classify(generate([prompt] * num)), num, len(categories))
        for prompt in prompts
    ]
    return Representation(tuple(prompts), tuple(categories), torch.stack(rows))


def category_counts(told: Tensor, num: int, num_categories: int) -> Tensor:
    """Counts (categories,) of what a classifier says about ``num`` images."""
    if told.shape == (num, num_categories) and told.is_floating_point():
        if bool(told.isnan().any()):
            raise ValueError("classify must return probabilities, got NaN")
        told = told.argmax(1)
    if told.shape != (num,) or told.is_floating_point():
        raise ValueError(
            f"classify must return integers ({num},) or probabilities ({num}, {num_categories}), "
            f"got {told.dtype} of {tuple(told.shape)}"
        )
    if bool(((told < 0) | (told >= num_categories)).any()):
        raise ValueError(
            f"classify must return categories 0 to {num_categories - 1}, got {int(told.min())} to "
            f"{int(told.max())}"
        )
    return torch.bincount(told.long(), minlength=num_categories)


def variation(p: Tensor, q: Tensor) -> Tensor:
    """Total variation (...) between distributions (..., categories)."""
    return (p - q).abs().sum(-1) / 2


def check_names(categories: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``categories`` are two different names or more, none blank."""
    check_list("categories", categories)
    if len(set(categories)) < max(2, len(categories)) or not all(map(str.strip, categories)):
        raise ValueError(f"categories must be two or more different names, got {categories!r}")


def check_generic(prompts: Sequence[str], categories: Sequence[str]) -> None:
    """Raise ``ValueError`` for a prompt that names a category, or if there is no prompt."""
    if not prompts:
        raise ValueError("prompts must be a list of one text or more, got none")
    for prompt in prompts:
        if named := named_categories(prompt, categories):
            raise ValueError(f"prompts must name no category, got {named[0]!r} in {prompt!r}")


def named_categories(prompt: str, categories: Sequence[str]) -> list[str]:
    """Those of ``categories`` that ``prompt`` names in words."""
    words = f" {' '.join(split_words(prompt))} "
    return [name for name in categories if f" {' '.join(split_words(name))} " in words]


def check_target(target: Mapping[str, float], categories: Sequence[str]) -> Tensor:
    """``target`` as a distribution (categories,). Raises ``ValueError`` for another mapping."""
    if set(target) != set(categories):
        raise ValueError(
            f"target must have a share of each of {', '.join(categories)}, got {dict(target)!r}"
        )
    check_numbers("target", "in [0, 1]", **target)
    shares = torch.tensor([float(target[name]) for name in categories], dtype=torch.float64)
    if abs(float(shares.sum()) - 1) > DISTRIBUTION_ERROR:
        raise ValueError(f"target must have the sum 1, got {float(shares.sum()):g}")
    return shares


def check_confusion(confusion: Tensor, size: int) -> Tensor:
    """``confusion`` in float64. Raises ``ValueError`` unless it is a matrix of distributions that
    can be inverted.
    """
    if confusion.shape != (size, size):
        raise ValueError(
            f"confusion must have shape ({size}, {size}), got {tuple(confusion.shape)}"
        )
    matrix = confusion.detach().double()
    error = (matrix.sum(1) - 1).abs().max()
    if not bool((matrix >= 0).all() & (error <= DISTRIBUTION_ERROR)):
        raise ValueError(f"confusion must have rows that are distributions, got {matrix.tolist()}")
    condition = float(torch.linalg.cond(matrix))
    if not condition <= MAX_CONDITION:
        raise ValueError(
            f"confusion must have a condition number of at most {MAX_CONDITION:g}, got "
            f"{condition:.3g}: the classifier does not tell the categories apart"
        )
    return matrix
