"""Generation that is held to a reference inside a mask, and subjects that take another's place;
all on our networks, and on a pipeline of ``diffusers``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latent_ebm.applications import TextToImage
from latent_ebm.conditions import Condition
from latent_ebm.denoisers import Denoiser, Preconditioned
from latent_ebm.guidance import (
    ClassifierFree,
    KnownRegion,
    NullText,
    StepWise,
    inversion_path,
    null_text,
    reference_guided,
    replace_subject,
)
from samplers import DDIM, Heun, VPDiscrete
from tests.latent_ebm.pipelines import write_pipeline
from tests.latent_ebm.test_attention_maps import DIM, TOKENS
from tests.latent_ebm.test_attention_maps import theirs as unet
from tests.latent_ebm.test_inversion_guidance import Shifted, network, sentences, told
from tests.samplers.table import seeded

WEIGHT = 2.5


@dataclass(frozen=True)
class Case:
    """A denoiser, a sampler, a scene and the same with another subject, and the null."""

    denoiser: Denoiser
    sampler: DDIM
    scene: Condition
    subject: Condition
    shape: tuple[int, ...]
    tokens: tuple[int, ...]  # where the scenes differ

    def noise(self, seed: int = 0) -> Tensor:
        num = len(next(iter(self.scene.values())))
        return torch.randn(num, *self.shape, generator=seeded(seed)).double()

    @property
    def null(self) -> Condition:
        return self.scene.unknown()

    @property
    def mask(self) -> Tensor:
        mask = torch.zeros(1, 1, *self.shape[1:]).double()
        mask[..., :2] = 1
        return mask

    def path(self, x_0: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        return inversion_path(partial(self.denoiser, **condition), self.sampler, x_0)


@pytest.fixture(scope="module")
def exact() -> Case:
    denoiser, scene = Shifted(), told(2)
    subject = Condition({"text": scene["text"].flip(0)}, scene.null)
    return Case(
        denoiser, DDIM(denoiser.schedule, 10, grid="log_snr"), scene, subject, (1, 4, 4), ()
    )


def subjects(scene: Condition, place: int) -> Condition:
    """``scene``, with another token at ``place``."""
    text = scene["text"].clone()
    text[:, place] = torch.randn(text.shape[2], generator=seeded(8)).double()
    return Condition({**scene, "text": text}, scene.null)


@pytest.fixture(scope="module")
def ours() -> Case:
    denoiser, scene = network(), sentences(2)
    sampler = DDIM(denoiser.schedule, 5, grid="log_snr")
    return Case(denoiser, sampler, scene, subjects(scene, 1), (1, 4, 4), (1,))


STABLE = VPDiscrete(1000, 0.00085, 0.012, "scaled_linear")


@pytest.fixture(scope="module")
def theirs() -> Case:
    denoiser = Preconditioned(unet(), STABLE, "eps", level=STABLE.position)
    text = torch.randn(2, TOKENS, DIM, generator=seeded(4)).double()
    scene = Condition({"text": text}, {"text": text[0] * 0})
    sampler = DDIM(STABLE, 5, grid="log_snr")
    return Case(denoiser, sampler, scene, subjects(scene, 1), (1, 4, 4), (1,))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A whole pipeline of diffusers, from its folder."""
    folder: Path = tmp_path_factory.mktemp("pipeline")
    write_pipeline(folder)
    model = TextToImage.load(folder)
    scene, subject = (
        Condition(*({n: v.double() for n, v in part.items()} for part in (told, told.null)))
        for told in map(model.conditioner.encode, (["red circle"], ["blue circle"]))
    )
    denoiser = model.denoiser.double().requires_grad_(False)
    return Case(denoiser, DDIM(STABLE, 5, grid="log_snr"), scene, subject, (4, 4, 4), (1,))


@pytest.fixture(params=["exact", "ours", "theirs"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["ours", "theirs"])
def attentive(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


def plain(case: Case, x_T: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
    guide = ClassifierFree(case.denoiser, WEIGHT, case.null)
    return case.sampler.sample(partial(guide, **condition), x_T)


def test_inside_the_mask_the_sample_follows_the_reference(case: Case) -> None:
    """It comes near by the copy, and nearer by nulls that are trained until the end."""
    x_T, reference = case.noise(), case.noise(1)
    path = case.path(reference, case.scene)
    held = partial(
        reference_guided,
        *(case.denoiser, case.sampler, x_T, case.scene, case.null, WEIGHT, path, case.mask),
        lr=0.1,
    )
    draws = held((0.2, 1.0)), held((0.2, 0.4)), plain(case, x_T, case.scene)
    trained, copied, free = (((x - reference).square() * case.mask).mean() for x in draws)
    assert trained < 0.95 * copied
    assert copied < free


def test_outside_of_its_span_the_sample_is_the_plain_one(case: Case) -> None:
    """With a reference path that is the sample's own and no room for updates, nothing changes."""
    x_T, guide = case.noise(), ClassifierFree(case.denoiser, WEIGHT, case.null)
    steps = case.sampler.run(partial(guide, **case.scene), x_T)
    path = torch.stack([x_T, *(x.detach() for _, _, x in steps)])
    arguments = (case.denoiser, case.sampler, x_T, case.scene, case.null, WEIGHT)
    found = reference_guided(*arguments, path, case.mask, num_updates=1)
    torch.testing.assert_close(found, path[-1], rtol=1e-9, atol=1e-9)


def test_entries_of_every_step_belong_to_the_condition_alone(case: Case) -> None:
    """With the condition's own entries at all times nothing changes; the null is left alone."""
    path, times = case.path(case.noise(1), case.scene), case.sampler.times(case.noise())[:-1]
    text = {"text": case.scene["text"].expand(len(times), *case.scene["text"].shape)}
    settings = (case.null, WEIGHT, path, case.mask)
    first, second = (
        reference_guided(denoiser, case.sampler, case.noise(), c, *settings, num_updates=1)
        for denoiser, c in (
            (case.denoiser, case.scene),
            (StepWise(case.denoiser, times, text), case.subject),
        )
    )
    torch.testing.assert_close(first, second)


def test_a_subject_of_every_step_replaces_another(attentive: Case) -> None:
    x_0, times = attentive.noise(1), attentive.sampler.times(attentive.noise())[:-1]
    text = attentive.subject["text"]
    step_wise = StepWise(attentive.denoiser, times, {"text": text.expand(5, *text.shape)})
    settings = (attentive.null, WEIGHT, attentive.tokens)
    first, second = (
        replace_subject(
            denoiser, attentive.sampler, x_0, attentive.scene, c, *settings, num_updates=1
        )
        for denoiser, c in (
            (attentive.denoiser, attentive.subject),
            (step_wise, attentive.scene),
        )
    )
    torch.testing.assert_close(first, second)


def test_the_same_subject_gives_the_image_back(attentive: Case) -> None:
    """Its maps replace themselves: what is left is the error of null-text optimisation."""
    x_0, scene = attentive.noise(1), attentive.scene
    settings = (attentive.null, WEIGHT)
    found = replace_subject(
        attentive.denoiser, attentive.sampler, x_0, scene, scene, *settings, attentive.tokens
    )
    path = attentive.path(x_0, scene)
    nulls = null_text(attentive.denoiser, attentive.sampler, path, scene, *settings)
    guide = NullText(attentive.denoiser, WEIGHT, attentive.sampler.times(x_0)[:-1], nulls)
    expected = attentive.sampler.sample(partial(guide, **scene), path[0])
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_kept_maps_keep_the_image(attentive: Case) -> None:
    """Without maps of its own no token matters but by its values, and with all of them the prompt
    alone decides.
    """
    x_0, given = attentive.noise(1), (attentive.scene, attentive.subject, attentive.null, WEIGHT)
    swap = partial(
        replace_subject, attentive.denoiser, attentive.sampler, x_0, *given, num_updates=2
    )
    free, none, own = swap(attentive.tokens, 0.0), swap([]), swap(attentive.tokens)
    every = swap(range(attentive.scene["text"].shape[1]))
    torch.testing.assert_close(every, free)
    assert not torch.allclose(none, free)
    assert not torch.allclose(none, own)
    path, times = attentive.path(x_0, attentive.scene), attentive.sampler.times(x_0)[:-1]
    nulls = null_text(
        *(attentive.denoiser, attentive.sampler, path, attentive.scene, attentive.null, WEIGHT),
        num_updates=2,
    )
    guide = partial(NullText(attentive.denoiser, WEIGHT, times, nulls), **attentive.subject)
    torch.testing.assert_close(free, attentive.sampler.sample(guide, path[0]))


def test_all_mechanisms_run_on_a_pipeline(pipeline: Case) -> None:
    """A step-wise condition, a step-wise null and a known region, one inside another."""
    theirs = pipeline
    x_0, times = theirs.noise(1), theirs.sampler.times(theirs.noise())[:-1]
    path = theirs.path(x_0, theirs.scene)
    nulls = null_text(
        theirs.denoiser, theirs.sampler, path, theirs.scene, theirs.null, WEIGHT, num_updates=8
    )
    guide = NullText(theirs.denoiser, WEIGHT, times, nulls)
    found = theirs.sampler.sample(partial(guide, **theirs.scene), path[0])
    before = plain(theirs, path[0], theirs.scene)
    assert (found - x_0).square().mean() < (before - x_0).square().mean()
    text = theirs.subject["text"]
    step_wise = StepWise(guide, times, {"text": text.expand(len(times), *text.shape)})
    known = KnownRegion(theirs.sampler, x_0, theirs.mask)
    x = known.sample(partial(step_wise, **theirs.scene), path[0], generator=seeded())
    outside = (theirs.mask == 0).expand_as(x)
    assert torch.equal(x[outside], x_0[outside])
    assert not torch.equal(x, x_0)
    given = (x_0, theirs.scene, theirs.subject, theirs.null, WEIGHT, theirs.tokens)
    new = replace_subject(theirs.denoiser, theirs.sampler, *given, num_updates=2)
    assert new.isfinite().all()
    assert not torch.allclose(new, x_0)


def guided(exact: Case, **changes) -> None:
    given = {"sampler": exact.sampler, "x_T": exact.noise(), "condition": exact.scene}
    given |= {"null": exact.null, "weight": WEIGHT, "mask": exact.mask}
    given |= {"path": torch.zeros(11, 2, 1, 4, 4).double()}
    reference_guided(exact.denoiser, **{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"span": (0.5, 0.5)}, r"span must be two shares in order, .* of 10, got \(0.5, 0.5\)"),
        ({"span": (0.5, 1.2)}, r"span must be two shares in order"),
        ({"span": (0.5, 0.52)}, r"span must be two shares in order"),
        ({"span": (float("nan"), 0.5)}, r"span must be two shares in order"),
        ({"span": (0.1, 0.5, 0.9)}, r"span must be two shares in order"),
        ({"span": 0.5}, r"span must be two shares in order"),
        ({"x_T": torch.full((2, 1, 4, 4), torch.nan).double()}, "x_T must be finite"),
        ({"x_T": torch.zeros(2, 1, 4, 4)}, r"path must hold images like x_T, torch.float32 of"),
        ({"path": torch.zeros(9, 2, 1, 4, 4)}, r"path must have shape \(11, batch"),
        ({"path": torch.zeros(11, 1, 1, 4, 4)}, r"path must hold images like x_T, .* \(11, 1,"),
        ({"mask": torch.zeros(1, 1, 4, 4)}, "mask must be 1 somewhere in every row"),
        ({"mask": torch.ones(1, 1, 4, 5)}, r"mask must be .* got .* \(1, 1, 4, 5\)"),
        ({"weight": 1.0}, "weight must not be 1"),
    ],
)
def test_refusals_of_a_reference(exact: Case, changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guided(exact, **changes)


def test_refusals_of_a_replacement(exact: Case, ours: Case) -> None:
    def refuse(message: str, case: Case, **changes) -> None:
        given = (case.noise(), case.scene, case.subject, case.null, WEIGHT)
        with pytest.raises(ValueError, match=message):
            replace_subject(
                case.denoiser, *(changes.pop("sampler", case.sampler), *given), **changes
            )

    refuse("network must have cross-attention, .* got Shifted", exact, tokens=[1])
    refuse("tokens must be places among 5 tokens, got 7", ours, tokens=[7], num_updates=1)
    refuse(r"subject must be like scene", replace(ours, subject=Condition()), tokens=[1])
    refuse(r"kept must be in \[0, 1\], got 1.5", ours, tokens=[1], kept=1.5)
    heun = Heun(ours.sampler.schedule, 3)
    refuse("DDIM with eta 0, got Heun", ours, tokens=[1], sampler=heun)
