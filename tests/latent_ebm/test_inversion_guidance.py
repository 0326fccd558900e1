"""Inversion under guidance, nulls for every step, and regions that stay.

The denoiser is exact for data that a text shifts, ``x = text + z`` with z of a Gaussian mixture.
"""

from functools import partial

import pytest
import torch
from torch import Tensor

from latent_ebm.conditions import Condition
from latent_ebm.denoisers import Denoiser, GaussianMixtureDenoiser, Preconditioned, generate
from latent_ebm.guidance import (
    ClassifierFree,
    KnownRegion,
    NullText,
    StepWise,
    inversion_path,
    null_text,
)
from latent_ebm.networks import MobileUNet
from samplers import DDIM, Ancestral, Heun, Renoising, VPCosine
from samplers.schedules import broadcast
from tests.latent_ebm.test_mobile_unet import wake
from tests.samplers.table import moment_z, seeded

SCHEDULE, SHAPE, WEIGHT = VPCosine(-8.0, 8.0), (1, 4, 4), 3.0
SAMPLER = DDIM(SCHEDULE, 12, grid="log_snr")
MASK = torch.zeros(1, 1, 4, 4).double()
MASK[..., :2] = 1


class Shifted(Denoiser):
    """The exact denoiser of ``x = text + z``, z of a mixture; ``text`` (batch, 1, 4, 4)."""

    def __init__(self) -> None:
        super().__init__()
        means = torch.randn(3, *SHAPE, generator=seeded(), dtype=torch.float64)
        self.mixture = GaussianMixtureDenoiser([0.3, 0.4, 0.3], means, [0.4, 0.5, 0.6], SCHEDULE)
        self.schedule, self.scale = SCHEDULE, torch.nn.Parameter(torch.ones(()).double())

    def forward(self, x_t: Tensor, t: Tensor, *, text: Tensor, **other: Tensor) -> Tensor:
        alpha = broadcast(SCHEDULE(t)[0], x_t)
        return self.mixture(x_t - alpha * self.scale * text, t) + self.scale * text


def noise(num: int, seed: int = 0) -> Tensor:
    return torch.randn(num, *SHAPE, generator=seeded(seed), dtype=torch.float64)


def told(num: int) -> Condition:
    text = noise(num, 3)
    return Condition({"text": text}, {"text": torch.zeros_like(text[0])})


def network() -> Preconditioned:
    torch.manual_seed(0)
    net = MobileUNet(
        (1, 4, 4), 6, (8, 16), (1, 1), (1, 1), (False, True), (True, True), num_heads=2
    )
    return Preconditioned(wake(net), SCHEDULE).double().requires_grad_(False)


def sentences(num: int) -> Condition:
    text = torch.randn(num, 5, 6, generator=seeded(4)).double()
    mask = torch.tensor([True, True, True, True, False]).expand(num, 5)
    return Condition({"text": text, "mask": mask}, {"text": text[0] * 0, "mask": mask[0]})


CASES = [(Shifted, told), (network, sentences)]
BOUNDS = [(*case, *bound) for case, bound in zip(CASES, [(30, 0.05), (8, 0.4)], strict=True)]
EVERY = pytest.mark.parametrize(("make", "condition"), CASES, ids=["exact", "network"])


@EVERY
def test_a_path_leads_from_noise_to_the_image(make, condition) -> None:
    denoiser, c, x_0 = make(), condition(3), noise(3)
    path = inversion_path(partial(denoiser, **c), SAMPLER, x_0)
    assert path.shape == (13, *x_0.shape)
    assert torch.equal(path[-1], x_0)
    assert not path.requires_grad
    times = SAMPLER.times(x_0)
    for i in range(12):  # a point is one step from the cleaner one
        step = SAMPLER.step(partial(denoiser, **c), path[i + 1], times[i + 1], times[i])
        torch.testing.assert_close(step, path[i])


@pytest.mark.parametrize(("make", "condition", "num", "share"), BOUNDS, ids=["exact", "network"])
def test_null_text_lowers_the_inversion_error(make, condition, num: int, share: float) -> None:
    denoiser, c, x_0 = make(), condition(3), noise(3)
    path = inversion_path(partial(denoiser, **c), SAMPLER, x_0)
    nulls = null_text(denoiser, SAMPLER, path, c, c.unknown(), WEIGHT, num_updates=num, lr=0.1)
    assert nulls["text"].shape == (12, *c["text"].shape)
    guide = NullText(denoiser, WEIGHT, SAMPLER.times(x_0)[:-1], nulls)
    found = SAMPLER.sample(partial(guide, **c), path[0])
    plain = SAMPLER.sample(partial(ClassifierFree(denoiser, WEIGHT, c.unknown()), **c), path[0])
    error, before = (((x - x_0) ** 2).mean() for x in (found, plain))
    assert error < share * before
    for name in set(nulls) - {"text"}:
        assert torch.equal(nulls[name][4], c.unknown()[name])


def test_null_text_trains_the_null_alone() -> None:
    denoiser, c, x_0 = Shifted(), told(2), noise(2)
    path, null = inversion_path(partial(denoiser, **c), SAMPLER, x_0), c.unknown()
    before = [value.clone() for value in (*denoiser.parameters(), path, *c.values(), null["text"])]
    null_text(denoiser, SAMPLER, path, c, null, WEIGHT)
    after = [*denoiser.parameters(), path, *c.values(), null["text"]]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert denoiser.scale.grad is None
    assert denoiser.scale.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nulls_of_half_precision_are_like_those_of_single(dtype: torch.dtype) -> None:
    """The last token has no gradient, which Adam must not make NaN."""
    found = []
    for kind in (torch.float32, dtype):
        denoiser = network().to(kind)
        c = Condition(
            {"text": sentences(2)["text"].to(kind), "mask": sentences(2)["mask"]},
            {"text": torch.zeros(5, 6, dtype=kind), "mask": torch.tensor([True] + 4 * [False])},
        )
        path = inversion_path(partial(denoiser, **c), SAMPLER, noise(2).to(kind))
        nulls = null_text(denoiser, SAMPLER, path, c, c.unknown(), WEIGHT, num_updates=3, lr=0.1)
        found.append(nulls["text"])
    assert found[1].dtype == dtype
    assert found[0].abs().max() > 0.1
    assert (found[1].float() - found[0]).norm() < 0.4 * found[0].norm()


def test_each_step_lands_no_farther_than_with_the_null_before_it() -> None:
    """Also with updates that are far too large. Rows do not depend on each other."""
    denoiser, c, x_0 = Shifted(), told(3), noise(3)
    path = inversion_path(partial(denoiser, **c), SAMPLER, x_0)
    wild = partial(null_text, denoiser, SAMPLER, weight=WEIGHT, lr=5.0)
    nulls = wild(path, c, c.unknown())["text"]
    times, x, last = SAMPLER.times(x_0), path[0], c.unknown()["text"]
    for i, null in enumerate(nulls):
        ends = [
            SAMPLER.step(
                partial(ClassifierFree(denoiser, WEIGHT, {"text": n}), **c), x, *times[i : i + 2]
            )
            for n in (null, last)
        ]
        found, before = ((end - path[i + 1]).flatten(1).norm(dim=1) for end in ends)
        assert (found <= before + 1e-12).all()
        x, last = ends[0], null
    alone = wild(path[:, 1:2], c.rows(slice(1, 2)), c.rows(slice(1, 2)).unknown())["text"]
    torch.testing.assert_close(alone[:, 0], nulls[:, 1])


def test_with_a_mask_only_the_inside_lands() -> None:
    denoiser, c, x_0 = Shifted(), told(2), noise(2)
    path = inversion_path(partial(denoiser, **c), SAMPLER, x_0)
    nulls = null_text(
        denoiser, SAMPLER, path, c, c.unknown(), WEIGHT, MASK, num_updates=30, lr=0.1
    )
    guide = NullText(denoiser, WEIGHT, SAMPLER.times(x_0)[:-1], nulls)
    found = SAMPLER.sample(partial(guide, **c), path[0]) - x_0
    inside, outside = ((found * m).square().sum() for m in (MASK, 1 - MASK))
    assert inside < 0.02 * outside


@pytest.mark.parametrize("t", [torch.tensor(0.51), torch.tensor([0.9, 0.3])])
def test_step_wise_entries_are_those_of_the_nearest_time(t: Tensor) -> None:
    denoiser, times = Shifted(), torch.tensor([1.0, 0.6, 0.2])
    own, shared, x = noise(6).view(3, 2, *SHAPE), noise(3)[:, None], noise(2, 1)
    for table, rows in ((own, 2), (shared, 1)):
        nearest = [int((times - u).abs().argmin()) for u in t.expand(2)]
        text = torch.stack([table[i, row % rows] for row, i in enumerate(nearest)])
        step_wise = StepWise(denoiser, times, {"text": table})
        torch.testing.assert_close(step_wise(x, t, text=noise(2)), denoiser(x, t, text=text))
    assert torch.equal(StepWise(denoiser, times, {"text": shared})(x, t), step_wise(x, t))


def test_rows_of_steps_are_handed_out_to_blocks_of_rows() -> None:
    """502 rows are drawn in two blocks; each gets the entries of its own rows."""
    num, times = 502, SAMPLER.times(torch.zeros(1))[:-1]
    text = 5.0 * (torch.arange(num) % 2).double().view(1, num, 1, 1, 1).expand(12, -1, *SHAPE)
    c = Condition({"text": torch.zeros(num, *SHAPE).double()})
    x = generate(StepWise(Shifted(), times, {"text": text}), SAMPLER, SHAPE, num, c)
    assert torch.equal((x.mean((1, 2, 3)) > 2.5).long(), torch.arange(num) % 2)
    guide = NullText(Shifted(), -1.0, times, {"text": text})
    x = generate(guide, SAMPLER, SHAPE, num, c)
    assert x[1::2].mean() > x[::2].mean() + 5
    known = KnownRegion(SAMPLER, text[0], MASK)
    x = generate(Shifted(), known, SHAPE, num, c, generator=seeded())
    assert torch.equal(x[..., 2:], text[0][..., 2:])


SAMPLERS = [SAMPLER, Ancestral(SCHEDULE, 5), Heun(SCHEDULE, 5), Renoising(SCHEDULE, 3)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outside_of_the_mask_the_image_is_kept_bit_by_bit(sampler, dtype) -> None:
    denoiser, x_0 = Shifted().to(dtype), noise(3).to(dtype)
    mask = torch.randint(2, (3, 1, 4, 4), generator=seeded()).to(dtype)
    c, x_T = {"text": torch.zeros_like(x_0)}, noise(3, 1).to(dtype)
    wrapped = KnownRegion(sampler, x_0, mask)
    x = wrapped.sample(partial(denoiser, **c), x_T, generator=seeded())
    assert torch.equal(x[mask == 0], x_0[mask == 0])
    assert (x[mask == 1] != x_0[mask == 1]).all()
    again = wrapped.sample(partial(denoiser, **c), x_T, generator=seeded())
    assert torch.equal(x, again)
    assert x.dtype == dtype


def test_what_is_known_has_the_noise_of_each_time() -> None:
    x_0, mask = torch.full((1, 1, 1, 2), 0.7).double(), torch.tensor([[[[1.0, 0.0]]]]).double()
    known = KnownRegion(DDIM(SCHEDULE, 3), x_0, mask)
    x_T = torch.zeros(20_000, 1, 1, 2).double()
    for _, s, x in known.run(lambda x, t: 0 * x, x_T, generator=seeded()):
        alpha, sigma = SCHEDULE(s)
        if s > 0:
            assert moment_z(x[..., 1].flatten(1), 0.7 * alpha[None], sigma[None, None] ** 2) < 4.8


def test_meta_tensors_pass() -> None:
    place = {"device": "meta", "dtype": torch.float64}
    denoiser, x_0, c = Shifted().to("meta"), torch.empty(2, *SHAPE, **place), told(2).to("meta")
    path = inversion_path(partial(denoiser, **c), SAMPLER, x_0)
    nulls = null_text(
        denoiser, SAMPLER, path, c, c.unknown(), WEIGHT, MASK.to("meta"), num_updates=1
    )
    guide = NullText(denoiser, WEIGHT, SAMPLER.times(x_0)[:-1], nulls)
    known = KnownRegion(SAMPLER, x_0, MASK.to("meta"))
    assert known.sample(partial(guide, **c), x_0).is_meta


X, PATH, NULL = noise(2), noise(26).view(13, 2, *SHAPE), told(2).unknown()


def train(**changes) -> object:
    given = {"sampler": SAMPLER, "path": PATH, "condition": told(2), "null": NULL, "weight": 2.0}
    return null_text(Shifted(), **{**given, **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KnownRegion(SAMPLER, X, MASK[..., :3]), r"mask must be .* got .* \(1, 1, 4, 3\)"),
        (lambda: KnownRegion(SAMPLER, X, MASK.long()), "mask must be a floating .* torch.int64"),
        (lambda: KnownRegion(SAMPLER, X, MASK / 2), "mask must hold 0 and 1 alone, .* to 0.5"),
        (lambda: KnownRegion(SAMPLER, X, 0 * MASK), "mask must be 1 somewhere .* 1 of 1 rows"),
        (lambda: KnownRegion(SAMPLER, X, 0 * MASK + 1), "mask must be 0 somewhere .* 1 of 1 rows"),
        (
            lambda: KnownRegion(SAMPLER, X, MASK).sample(lambda x, t: x, noise(3)),
            r"x_t must be like x_0, torch.float64 of shape \(2, 1, 4, 4\), got .* \(3, 1, 4, 4\)",
        ),
        (
            lambda: KnownRegion(SAMPLER, X, MASK).sample(lambda x, t: x, X.float()),
            "x_t must be like x_0, torch.float64 of shape .*, got torch.float32",
        ),
        (lambda: KnownRegion(SAMPLER, X, None), "mask must be a Tensor, got None"),  # pyright: ignore
        (
            lambda: next(KnownRegion(SAMPLER, X, MASK).invert(lambda x, t: x, X)),
            "invert needs a sampler that draws no noise",
        ),
        (
            lambda: StepWise(Shifted(), torch.ones(3), {"text": noise(2)[:, None]}),
            r"step-wise text must have shape \(3, rows, \*entry\), like times, got \(2, 1, 1",
        ),
        (lambda: StepWise(Shifted(), torch.ones(3), {}), "must have names and times"),
        (lambda: StepWise(Shifted(), [1.0], {"text": X[None]}), "times must be a Tensor"),  # pyright: ignore
        (lambda: StepWise(Shifted(), torch.ones(1), None), "must be a Mapping, got None"),  # pyright: ignore
        (
            lambda: StepWise(Shifted(), torch.ones(1), {"text": X[None]})(
                noise(3), torch.ones(())
            ),
            "step-wise text must have 1 or 3 rows, got 2",
        ),
        (lambda: train(sampler=Heun(SCHEDULE, 12)), "needs a sampler DDIM with eta 0, got Heun"),
        (lambda: train(path=PATH[1:]), r"path must have shape \(13, .* got \(12, 2, 1, 4, 4\)"),
        (lambda: train(path=None), "path must be a Tensor, got None"),
        (lambda: train(weight=1.0), "weight must not be 1"),
        (lambda: train(sampler=DDIM(VPCosine(-2.0), 12)), "schedule must be that of the denoiser"),
        (lambda: train(condition=None), "condition must be a Mapping, got None"),
        (lambda: inversion_path(lambda x, t: x, None, X), "must be a ReverseSampler, got None"),  # pyright: ignore
        (lambda: train(mask=MASK[..., 1:]), "mask must be a floating tensor of shape"),
        (lambda: train(mask=0 * MASK), "mask must be 1 somewhere"),
        (lambda: train(null={}), "name must be an entry of the null .* one of none, got 'text'"),
        (lambda: train(name="words"), "one of text, got 'words'"),
        (
            lambda: train(null={**NULL, "mask": X}),
            "must have the same names, got text and text, m",
        ),
        (lambda: Condition(dict(told(2))).unknown(), "a condition must have a null for text"),
    ],
)
def test_refusals(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: train(path=PATH * torch.nan),
        lambda: train(condition={"text": told(2)["text"] * torch.nan}),
        lambda: train(null={"text": NULL["text"] * torch.nan}),
        lambda: StepWise(Shifted(), torch.full((1,), torch.nan), {"text": X[None]}),
    ],
)
def test_what_is_not_finite_does_not_pass_in_silence(make) -> None:
    with pytest.raises((FloatingPointError, ValueError), match="must be finite"):
        make()
