"""Guidance against the exact posterior of a class in a mixture; one call, whatever is told."""

import pytest
import torch
from torch import Tensor

from latent_ebm.conditions import ClassLabels, Condition, label_condition
from latent_ebm.denoisers import Denoiser, GaussianMixtureDenoiser, generate
from latent_ebm.distillation import DistributionMatching, OneStep
from latent_ebm.guidance import ClassifierFree, classifier_free, guided
from samplers import DDIM, VPCosine
from tests.latent_ebm.text_like import TextDenoiser, TokenVectors, sentences

NOTHING = label_condition(torch.tensor([-1]))


def mixture() -> GaussianMixtureDenoiser:
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 2.0]], dtype=torch.float64)
    return GaussianMixtureDenoiser(
        [0.5, 0.3, 0.2], means, means.new_tensor([0.3, 0.5, 0.4]), VPCosine()
    )


class Counted(Denoiser):
    """``denoiser``, and the number of rows of every call."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.calls = denoiser, denoiser.schedule, []

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        self.calls.append(len(x_t))
        return self.denoiser(x_t, t, **condition)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("t", [torch.tensor(0.4), torch.linspace(0.1, 0.9, 7)], ids=["one", "own"])
@pytest.mark.parametrize(
    "against", [[-1], [-1] * 7, [2], [1, 2, 0, 1, 2, 0, 1]], ids=["null", "nulls", "not", "nots"]
)
def test_guidance_adds_the_gradient_of_the_class_posterior(weight, t, against):
    """``against`` is the null, or a negative condition: one for all rows, or one for each."""
    exact, null = mixture(), label_condition(torch.tensor(against))
    x, label = torch.randn(7, 2, dtype=torch.float64, requires_grad=True), torch.arange(7) % 3
    untold = exact.log_prob(x, t, label=null["label"].expand(7))
    told = exact.log_prob(x, t, label=label)
    (expected,) = torch.autograd.grad((untold + weight * (told - untold)).sum(), x)
    torch.testing.assert_close(
        ClassifierFree(exact, weight, null).score(x, t, label=label), expected
    )


def test_every_row_may_have_a_weight_of_its_own():
    exact, x, t = mixture(), torch.randn(3, 2, dtype=torch.float64), torch.tensor(0.4)
    label, weights = label_condition(torch.arange(3)), torch.tensor([0.0, 1.0, 3.0])
    found = classifier_free(exact, x, t, label, NOTHING, weights)
    for row, weight in enumerate(weights.tolist()):
        alone = classifier_free(exact, x, t, label, NOTHING, weight)[row]
        torch.testing.assert_close(found[row], alone)


def test_both_conditions_are_told_in_one_call():
    counted, x, t = Counted(mixture()), torch.randn(4, 2).double(), torch.tensor(0.5)
    label = label_condition(torch.arange(4) % 3)
    ClassifierFree(counted, 2.0, NOTHING)(x, t, **label)
    guided(counted, label, 2.0)(x, t)
    guided(counted, label, 1.0)(x, t)
    assert counted.calls == [8, 8, 4]


def test_a_sequence_with_a_mask_is_guided_by_the_same_code():
    """A batched call is that of both conditions on their own, also against another sentence."""
    torch.manual_seed(0)
    conditioner, denoiser = TokenVectors(), TextDenoiser()
    counted, x, t = Counted(denoiser), torch.randn(5, 3), torch.linspace(0.2, 0.8, 5)
    told, other = (
        conditioner(sentences(5)),
        conditioner(sentences(5).rows(torch.arange(5).flip(0))),
    )
    for null in (told.unknown(), told.rows(slice(1)).unknown(), conditioner.unknown(5), other):
        rows = {name: value.expand(5, *value.shape[1:]) for name, value in null.items()}
        untold = denoiser(x, t, **rows)
        expected = untold + 3.0 * (denoiser(x, t, **told) - untold)
        found = ClassifierFree(counted, 3.0, null)(x, t, **told)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(found, denoiser(x, t, **told), atol=1e-2)
    assert counted.calls == [10] * 4


def test_the_null_moves_with_the_module():
    guide = ClassifierFree(mixture(), 2.0, NOTHING).to("meta")
    x = torch.zeros(3, 2, device="meta", dtype=torch.float64)
    assert guide(
        x, torch.tensor(0.5, device="meta"), label=torch.zeros(3).long().to("meta")
    ).is_meta


def test_a_distiller_asks_the_guided_teacher():
    """The gap is the difference of exact scores, of which the teacher's is guided."""
    teacher = mixture()
    student = OneStep(TextDenoiser(2).double(), 0.0)
    rule = DistributionMatching(
        teacher, student, mixture(), 2, torch.optim.Adam, conditioner=ClassLabels(), guidance=3.0
    )
    x, told = torch.randn(50, 2).double(), label_condition(torch.arange(50) % 3)
    noise = rule.draw_noise(x)
    x_t = noise.alpha[:, None] * x + noise.sigma[:, None] * noise.eps
    expected = 2.0 * (teacher(x_t, noise.t, **told) - teacher(x_t, noise.t))
    torch.testing.assert_close(rule.gap(x, noise, told), expected)


def test_samples_have_their_condition_in_every_block():
    """1,100 rows are more than two blocks; what a class is far from others is all in its place."""
    exact = GaussianMixtureDenoiser([0.5, 0.5], [[-3.0], [3.0]], [0.1, 0.1], VPCosine())
    label = torch.arange(1100) % 2
    sampler = DDIM(exact.schedule, 4)
    x = generate(exact, sampler, (1,), 1100, label_condition(label))
    assert torch.equal((x[:, 0] > 0).long(), label)
    first, again, other = (
        generate(exact, sampler, (1,), 1100, generator=torch.Generator().manual_seed(k))
        for k in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert generate(exact, sampler, (1,), 0).shape == (0, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassifierFree(mixture(), 2.0, Condition()), "null must say what stands for no"),
        (
            lambda: ClassifierFree(mixture(), 2.0, NOTHING)(torch.zeros(3, 2), torch.tensor(0.5)),
            "condition and null must have the same names, got none and label",
        ),
        (
            lambda: ClassifierFree(mixture(), 2.0, label_condition(torch.zeros(2).long()))(
                torch.zeros(3, 2).double(), torch.tensor(0.5), label=torch.zeros(3).long()
            ),
            r"label must have entries of one shape and 1 or 3 rows, got shapes \(3,\) and \(2,\)",
        ),
        (
            lambda: mixture()(torch.zeros(3, 2), torch.tensor(0.5), tokens=torch.zeros(3)),
            "a mixture's condition must be a label, got tokens",
        ),
        (
            lambda: DistributionMatching(
                mixture(), OneStep(TextDenoiser(2)), None, 2, torch.optim.Adam, guidance=2.0
            ),
            r"guidance must be 1 without a conditioner, got 2\.0",
        ),
        (
            lambda: generate(
                mixture(), DDIM(VPCosine(), 2), (2,), 4, label_condition(torch.arange(3))
            ),
            "condition label must have 4 rows, got 3",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_null_of_every_row_is_handed_out_to_blocks_of_rows():
    """1,003 rows are drawn in three blocks, the last of which has three rows."""
    exact, num = mixture(), 1003
    label, other = label_condition(torch.arange(num) % 3), torch.arange(num) // 7 % 3

    def draw(null: Tensor) -> Tensor:
        guide, noise = ClassifierFree(exact, 1.5, label_condition(null)), torch.Generator()
        noise.manual_seed(0)
        return generate(guide, DDIM(exact.schedule, 2), (2,), num, label, generator=noise)

    whole = draw(other)
    for k in range(3):
        mine = other == k
        torch.testing.assert_close(whole[mine], draw(torch.tensor([k]))[mine])
    for rows in (2, 501, num + 1):
        with pytest.raises(ValueError, match=f"null label must have 1 or {num} rows, got {rows}"):
            draw(torch.zeros(rows, dtype=torch.long))
