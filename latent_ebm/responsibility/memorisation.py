r"""What has a generator learnt by heart? Two signals, and copies that are planted to measure it.

*Nearest neighbours*: a copy of a training image is much nearer to it than to the images around it.
The ratio of these distances (Carlini et al. 2023, arXiv:2301.13188) is compared with that of
held-out images, which cannot have been copied: a conformal p-value.

*Text*: where a prompt alone decides the image, the text moves the denoiser from the first step on.
``||D(x_t, c) - D(x_t, null)||`` is then large (Wen et al. 2024, arXiv:2407.21720), and nothing but
the model is needed.

*Canaries* are images of your own that are put into the training set 1, 10 and 100 times. How many
come out again, by number of copies, tells what one copy of anything would do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from latent_ebm.blocks import blocks
from latent_ebm.denoisers import Denoiser
from latent_ebm.metrics import Share, share_of
from latent_ebm.metrics.checks import as_matrix
from latent_ebm.responsibility.watermark import check_images
from latent_ebm.text.tokenizer import check_list
from samplers.checks import check_counts, check_numbers
from samplers.reverse import ReverseSampler
from samplers.run_checks import check_position

NEIGHBOURS = 50
DECIMALS = 9  # of a ratio; lower ones depend on the number of rows, and would hide equal ratios


def neighbour_ratio(x: Tensor, train: Tensor, num_neighbours: int = NEIGHBOURS) -> Tensor:
    """Distance (n,) of every row of ``x`` to the nearest row of ``train``, divided by its mean
    distance to the ``num_neighbours`` nearest. Near 0 for a copy, near 1 for a row that is like no
    training row more than another.

    Args:
        x: Rows (n, d): pixels, or better features of images.
        train: All training rows (m, d), each once: copies of a row hide it.
        num_neighbours: Number of neighbours, at least 2, at most m.

    Raises:
        ValueError: For sets that do not fit each other.
    """
    check_counts("neighbour_ratio", least=2, num_neighbours=num_neighbours)
    rows = as_matrix("x", x, 1)
    known = as_matrix("train", train, num_neighbours)
    if rows.shape[1] != known.shape[1]:
        raise ValueError(
            f"x must have {known.shape[1]} columns, as train has, got {rows.shape[1]}"
        )
    return torch.cat([ratios(rows[part], known, num_neighbours) for part in blocks(len(rows))])


def ratios(rows: Tensor, known: Tensor, num_neighbours: int) -> Tensor:
    """``neighbour_ratio`` of rows that were checked, all at once."""
    near = torch.cdist(rows, known).topk(num_neighbours, largest=False)
    first = (rows - known[near.indices[:, 0]]).norm(dim=1)  # exactly 0 for a copy
    mean = near.values.mean(1)
    return (first / mean).where(mean > 0, 0.0).round(decimals=DECIMALS)


def copy_p_values(
    x: Tensor, train: Tensor, held_out: Tensor, num_neighbours: int = NEIGHBOURS
) -> Tensor:
    """P-values (n,): ``(1 + #{held-out rows with a ratio as small}) / (held-out rows + 1)`` of
    ``neighbour_ratio``; small for copies of training rows. Equal ratios count as well.

    For a row that is exchangeable with the held-out rows ``P(p <= a) <= a``, whatever the features
    (Bates et al. 2023, arXiv:2104.08279). A generator's images are never quite that: a small p may
    also mean that it draws typical images only.

    Args:
        x: Rows (n, d) of generated images.
        train: Rows (m, d) of training images, each once.
        held_out: Rows (k, d) of images that were not trained on, from where ``train`` comes.
        num_neighbours: Number of neighbours in the ratio.

    Raises:
        ValueError: For sets that do not fit each other.
    """
    calibration = neighbour_ratio(held_out, train, num_neighbours).sort().values
    found = neighbour_ratio(x, train, num_neighbours)
    counts = torch.searchsorted(calibration, found, right=True)
    return (1 + counts).double() / (len(calibration) + 1)


@torch.no_grad()
def text_difference(
    denoiser: Denoiser,
    sampler: ReverseSampler,
    x_T: Tensor,
    condition: Mapping[str, Tensor],
    null: Mapping[str, Tensor],
    num_first: int = 1,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The mean (n,) of ``||D(x_t, c) - D(x_t, null)||`` over the first ``num_first`` steps on the
    way from ``x_T`` under c. High where the text alone decides the image.

    Compare prompts with each other, over the same ``x_T`` and several of them: the number has no
    scale of its own.

    Args:
        denoiser: Takes the names of both conditions as keywords.
        sampler: Leads from noise to images, on the schedule of the denoiser.
        x_T: Noise (n, \\*event) of scale ``sigma_1``.
        condition: The condition c, one entry per row.
        null: What stands for no text, one entry per row.
        num_first: Number of steps, at most those of the sampler.
        generator: The random stream of a sampler that draws noise.

    Raises:
        ValueError: For a ``num_first`` out of range, or what the sampler refuses.
    """
    check_counts("text_difference", num_first=num_first)
    if num_first > sampler.num_steps:
        raise ValueError(
            f"num_first must be at most {sampler.num_steps}, the steps of the sampler, got "
            f"{num_first}"
        )
    check_position(x_T, "x_T")
    told, untold = partial(denoiser, **condition), partial(denoiser, **null)
    x, norms = x_T, []
    for t, s in pairwise(sampler.times(x_T)[: num_first + 1]):
        norms.append((told(x, t) - untold(x, t)).flatten(1).norm(dim=1))
        x = sampler.step(told, x, t, s, generator=generator)
    return torch.stack(norms).mean(0)


@dataclass(frozen=True)
class Canaries:
    """Images and prompts to plant in a training set, and how often each.

    Args:
        x: Images (n, C, H, W), unlike any other of the training set.
        prompts: The prompt of each, which no other image has.
        copies: How often each is planted, such as 1, 10 and 100 in turn.

    Raises:
        ValueError: If the lengths differ, or two prompts are the same.
    """

    x: Tensor
    prompts: Sequence[str]
    copies: Sequence[int]

    def __post_init__(self) -> None:
        check_images(self.x)
        check_list("prompts", self.prompts)
        for num in self.copies:
            check_counts(self, copies=num)
        if not len(self.x) == len(self.prompts) == len(self.copies):
            raise ValueError(
                f"prompts and copies must have one entry per image, {len(self.x)}, got "
                f"{len(self.prompts)} and {len(self.copies)}"
            )
        if len(set(self.prompts)) < len(self.prompts):
            raise ValueError("prompts must differ, so that each calls for one canary")

    def planted(self) -> tuple[Tensor, list[str]]:
        """The rows to add to a training set: every image and prompt as often as planted."""
        repeats = torch.tensor(list(self.copies), device=self.x.device)
        prompts = [p for p, k in zip(self.prompts, self.copies, strict=True) for _ in range(k)]
        return self.x.repeat_interleave(repeats, 0), prompts

    def measure(
        self,
        generate: Callable[[Sequence[str]], Tensor],
        distance: Callable[[Tensor, Tensor], Tensor],
        threshold: float,
        num: int = 10,
        confidence: float = 0.95,
    ) -> dict[int, Share]:
        """The share of canaries that come out again, for every number of copies, with the interval
        of Clopper and Pearson.

        A canary comes out if one of ``num`` images for its prompt is nearer to it than
        ``threshold``. Choose that so that a model trained without canaries draws none of them.

        Args:
            generate: Maps a list of prompts to one image each, (n, C, H, W).
            distance: Distances (n,) between images and images (n, C, H, W), row by row, such as
                ``image_distance``.
            threshold: The distance below which an image is a copy.
            num: Number of images of a prompt.
            confidence: Coverage of the interval, in (0, 1).

        Raises:
            ValueError: For numbers out of range, or what the callables return does not fit.
        """
        check_counts(self, num=num)
        check_numbers(self, "positive", threshold=threshold)
        found: dict[int, list[bool]] = {}
        for x, prompt, copies in zip(self.x, self.prompts, self.copies, strict=True):
            drawn = generate([prompt] * num)
            if drawn.shape != (num, *x.shape):
                raise ValueError(
                    f"generate must return an image {tuple(x.shape)} for each of {num} prompts, "
                    f"got shape {tuple(drawn.shape)}"
                )
            apart = distance(drawn, x.expand(num, *x.shape))
            if apart.shape != (num,) or bool(apart.isnan().any()):
                got = "NaN" if apart.shape == (num,) else f"shape {tuple(apart.shape)}"
                raise ValueError(f"distance must be ({num},) numbers, got {got}")
            found.setdefault(copies, []).append(bool((apart < threshold).any()))
        return {
            copies: share_of(sum(hits), len(hits), confidence, exact=True)
            for copies, hits in sorted(found.items())
        }


def image_distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean squared difference (n,) of the pixels of ``a`` and ``b`` (n, \\*event)."""
    return (a - b).square().flatten(1).mean(1).sqrt()
