r"""Another subject in a given image, without a mask (HiFi Tuner, arXiv:2312.00079).

The image is inverted with its own caption, and nulls are trained so that guided sampling returns
it. Then both are sampled side by side from the same noise: the image with its caption, and the new
one with the prompt of the subject. At every step the new one uses the cross-attention maps of the
image for all tokens but those of the subject, and so keeps its layout.
"""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from latent_ebm.denoisers import Denoiser
from latent_ebm.guidance.attention_maps import record, replace
from latent_ebm.guidance.inversion import inversion_path
from latent_ebm.guidance.null_text import check_training, null_text
from latent_ebm.guidance.step_wise import Timetable, told_the_null
from samplers.checks import check_kind, check_numbers
from samplers.reverse import ReverseSampler
from samplers.reverse_checks import check_arrival
from samplers.run_checks import check_position


@torch.no_grad()
def replace_subject(
    denoiser: Denoiser,
    sampler: ReverseSampler,
    x_0: Tensor,
    scene: Mapping[str, Tensor],
    subject: Mapping[str, Tensor],
    null: Mapping[str, Tensor],
    weight: float,
    tokens: Sequence[int],
    kept: float = 1.0,
    *,
    name: str = "text",
    num_updates: int = 10,
    lr: float = 1e-2,
) -> Tensor:
    """Images like ``x_0`` (batch, C, H, W), in which the subject is another.

    Args:
        denoiser: The denoiser, unguided, with cross-attention to the text; or ``StepWise`` around
            it, whose entries belong to the subject.
        sampler: ``DDIM`` with ``eta`` 0.
        x_0: The images or latents.
        scene: The condition that says what they show, with one entry per row.
        subject: The same with the new subject, whose tokens stand in the same places.
        null: The null, with the same names.
        weight: The weight w of guidance, not 1.
        tokens: Places of the subject's tokens, which get maps of their own; -1 is the last one.
        kept: The share of the steps, from the first one on, in which maps are kept.
        name: The entry of the null that is trained.
        num_updates: Updates by Adam in each step.
        lr: Learning rate of Adam.

    Raises:
        ValueError: For a share outside [0, 1], a denoiser without cross-attention, a token that
            there is not, and what ``inversion_path`` and ``null_text`` refuse.
        FloatingPointError: If the result is not finite.
    """
    check_training(denoiser, sampler, weight, name, scene, null, num_updates, lr)
    check_position(x_0, "x_0")
    check_subject(scene, subject)
    check_numbers("replace_subject", "in [0, 1]", kept=kept)
    base, times = told_the_null(denoiser), sampler.times(x_0)
    path = inversion_path(partial(base, **scene), sampler, x_0)
    train = partial(null_text, name=name, num_updates=num_updates, lr=lr)
    nulls = Timetable(times[:-1], train(base, sampler, path, scene, null, weight))
    old = new = path[0]
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        with record(base) as maps:
            before = base(old, t, **scene)
        keep = i < round(kept * sampler.num_steps)
        with replace(base, maps, tokens) if keep else nullcontext():
            after = denoiser(new, t, **subject)
        old, new = (
            follow(sampler, x, told, base(x, t, **nulls.at(t, len(x))), weight, t, s)
            for x, told in ((old, before), (new, after))
        )
    check_arrival(sampler, "x_0", x_0, new)
    return new


def check_subject(scene: Mapping[str, Tensor], subject: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` unless the condition ``subject`` has the names and shapes of
    ``scene``.
    """
    check_kind("replace_subject", Mapping, subject=subject)
    shapes = [{n: tuple(v.shape) for n, v in told.items()} for told in (scene, subject)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"subject must be like scene, {shapes[0]}, got {shapes[1]}")


def follow(
    sampler: ReverseSampler,
    x_t: Tensor,
    told: Tensor,
    untold: Tensor,
    weight: float,
    t: Tensor,
    s: Tensor,
) -> Tensor:
    """The step of ``sampler`` from ``x_t`` at t to s, guided by the estimates ``told`` and
    ``untold``.
    """
    return sampler.step(lambda x, time: untold + weight * (told - untold), x_t, t, s)
