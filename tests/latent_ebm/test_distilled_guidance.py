"""One student for a range of guidance, against an exact teacher whose guided steps are affine."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from latent_ebm.conditions import Batch, ClassLabels, Condition, label_condition
from latent_ebm.denoisers import Denoiser, Preconditioned, generate
from latent_ebm.distillation import Progressive
from latent_ebm.guidance import ClassifierFree, weighted
from latent_ebm.networks import MobileUNet
from samplers import DDIM, VPCosine

SCHEDULE = VPCosine(-8, 8)
ADAM = partial(torch.optim.Adam, lr=1e-2)
STEPS = 4  # of the teacher
RANGE = (1.0, 4.0)
WEIGHTS = [1.0, 1.7, 2.5, 4.0]
MEANS, SCALES = torch.tensor([-1.0, 0.7, 0.2]), torch.tensor([0.4, 0.6, 1.1])  # the last: null


class Gaussians(Denoiser):
    """The exact denoiser of ``N(mean, scale^2)`` for each of two labels, and of another one for
    the label -1. It counts the rows of its calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.rows = SCHEDULE, list[int]()

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        self.rows.append(len(x_t))
        mean, variance = (
            table[condition["label"]][:, None].to(x_t) for table in (MEANS, SCALES**2)
        )
        alpha, sigma = (a.to(x_t).expand(len(x_t))[:, None] for a in self.schedule(t))
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return mean + gain * (x_t - alpha * mean)


class Quadratic(Denoiser):
    """Affine in x_t, with coefficients that are quadratic in the weight of guidance, for every
    time of two steps and every label: two guided steps of ``Gaussians`` are of this kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.schedule = SCHEDULE
        self.table = nn.Parameter(torch.zeros(STEPS // 2 + 1, 2, 2, 3, dtype=torch.float64))

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        k = (t * STEPS / 2).round().long().expand(len(x_t))
        powers = ((condition["guidance"] - 2.5) / 1.5)[:, None, None] ** torch.arange(3)
        slope, shift = (self.table[k, condition["label"]] * powers.to(x_t)).sum(2).unbind(1)
        return slope[:, None] * x_t + shift[:, None]


def rule(student: Denoiser | None = None, teacher: Denoiser | None = None, **more) -> Progressive:
    student = Quadratic() if student is None else student
    teacher = Gaussians() if teacher is None else teacher
    options = {"teacher_steps": STEPS, "num_steps": STEPS // 2, "guidance": RANGE, **more}
    return Progressive(teacher, student, (1,), ADAM, conditioner=ClassLabels(2), **options)


def rows(num: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num, 1, dtype=torch.float64, generator=generator)
    return Batch(x, label_condition(torch.arange(num) % 2), None)


def fitted(made: Progressive) -> Progressive:
    """``made`` at the optimum of its loss, which is quadratic in the student's table."""
    torch.manual_seed(0)
    batch = rows(400)
    solver = torch.optim.LBFGS(made.student.parameters(), 1, 300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        torch.manual_seed(1)
        solver.zero_grad()
        loss = made.losses(batch)["student"]
        loss.backward()
        return loss

    solver.step(closure)
    return made


def guided_teacher(weight: float) -> ClassifierFree:
    return ClassifierFree(Gaussians(), weight, label_condition(torch.tensor([-1])))


@pytest.fixture(scope="module")
def student() -> Progressive:
    return fitted(rule())


@pytest.mark.parametrize("weight", WEIGHTS)
def test_one_student_is_the_guided_teacher_at_every_weight(
    student: Progressive, weight: float
) -> None:
    """Two of its steps are four of the teacher, from the same noise."""
    x, told, _ = rows(10)
    four = DDIM(SCHEDULE, STEPS).sample(partial(guided_teacher(weight), **told), x)
    condition = weighted(told, torch.full((10,), weight))
    two = DDIM(SCHEDULE, STEPS // 2).sample(partial(student.student, **condition), x)
    torch.testing.assert_close(two, four, atol=1e-4, rtol=1e-4)
    unguided = DDIM(SCHEDULE, STEPS).sample(partial(Gaussians(), **told), x)
    assert weight == 1 or (four - unguided).abs().mean() > 0.1, "there was something to learn"


def test_every_row_has_the_target_of_its_own_weight() -> None:
    """Also in the next stage, whose teacher is the last student and takes the same weights."""
    made, (x, told, _) = rule(), rows(len(WEIGHTS))
    t = torch.ones(len(x), dtype=torch.float64)
    weights = torch.tensor(WEIGHTS)
    target = made.target(x, t, t - 0.5, told, weights)
    for row, weight in enumerate(WEIGHTS):
        alone = told.rows(slice(row, row + 1))
        denoise = partial(guided_teacher(weight), **alone)
        solver, y = DDIM(SCHEDULE, 4), x[row : row + 1]
        for k in (4, 3):
            y = solver.step(denoise, y, torch.tensor(k / 4), torch.tensor((k - 1) / 4))
        guess = target[row : row + 1]
        reached = solver.step(lambda x, t, g=guess: g, x[row : row + 1], t[:1], t[:1] - 0.5)
        torch.testing.assert_close(reached, y, atol=1e-6, rtol=1e-6)


class Recorder(Quadratic):
    """Keeps the weights that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told = list[Tensor]()

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        self.told.append(condition["guidance"])
        return super().forward(x_t, t, **condition)


def test_passes_of_a_step() -> None:
    """Both branches of guidance are one call; later stages need the last student alone, which is
    told the same weights as the new one.
    """
    teacher, recorder = Gaussians(), Recorder()
    made = rule(recorder, teacher, teacher_steps=8)
    made.losses(rows(6))
    assert teacher.rows == [12, 12]
    assert len(recorder.told) == 1
    (weight,) = recorder.told
    assert RANGE[0] <= weight.min() < weight.max() <= RANGE[1]
    made.stage = 1
    assert isinstance(made.previous, Recorder)
    made.losses(rows(6))
    assert teacher.rows == [12, 12]
    assert len(made.previous.told) == 2
    assert all(torch.equal(w, recorder.told[-1]) for w in made.previous.told)


def test_weights_are_uniform_in_the_range() -> None:
    weight = rule().draw_weight(torch.zeros(20_000, 1))
    assert isinstance(weight, Tensor)
    assert weight.mean().item() == pytest.approx(2.5, abs=0.03)
    assert weight.std().item() == pytest.approx(3 / 12**0.5, abs=0.02)


def test_samples_have_the_weight_that_is_asked_for(student: Progressive) -> None:
    told = label_condition(torch.arange(6) % 2)
    for asked, weight in ((None, 1.0), (2.5, 2.5)):
        found = student.generate(
            6, told, guidance=asked, generator=torch.Generator().manual_seed(2)
        )
        generator = torch.Generator().manual_seed(2)
        expected = generate(
            guided_teacher(weight), DDIM(SCHEDULE, STEPS), (1,), 6, told, generator=generator
        )
        torch.testing.assert_close(found["x"], expected.double(), atol=1e-3, rtol=1e-3)


def network(**changes) -> MobileUNet:
    torch.manual_seed(0)
    made = MobileUNet((3, 8, 8), 8, (8, 16), (1, 1), (0, 1), (False, True), (True, True))
    for parameter in made.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return made


def test_a_copy_of_the_teacher_takes_the_weight_and_starts_as_the_teacher() -> None:
    teacher = Preconditioned(network(), SCHEDULE)
    made = Progressive(
        teacher, None, (3, 8, 8), ADAM, 4, 2, conditioner=ClassLabels(), guidance=RANGE
    )
    copy, x, t = made.student, torch.randn(5, 3, 8, 8), torch.linspace(0.1, 0.9, 5)
    text = torch.randn(5, 3, 8)
    found = copy(x, t, text=text, guidance=torch.linspace(1, 4, 5))
    torch.testing.assert_close(found, teacher(x, t, text=text))
    names, base = set(copy.state_dict()), set(teacher.state_dict())
    assert base < names
    assert all(name.startswith("network.guidance.") for name in names - base)
    found.square().mean().backward()
    assert isinstance(copy, Preconditioned)
    last = copy.network.get_parameter("guidance.2.weight")
    assert last.grad is not None
    assert last.grad.abs().max() > 0, "the weight can be learnt"
    assert not any(p.requires_grad for p in [*teacher.parameters(), *made.previous.parameters()])


TOLD = label_condition(torch.zeros(2))
WRONG = [
    (lambda: rule(guidance=(4.0, 1.0)), r"a weight or a range \[least, greatest\], got \(4.0"),
    (lambda: rule(guidance=[1.0, 2.0, 3.0]), "a weight or a range"),
    (lambda: rule(guidance=(1.0, float("inf"))), "greatest must be finite"),
    (
        lambda: Progressive(Gaussians(), Quadratic(), (1,), ADAM, guidance=RANGE),
        "guidance must be 1 without a conditioner",
    ),
    (
        lambda: Progressive(
            Gaussians(), None, (1,), ADAM, conditioner=ClassLabels(), guidance=RANGE
        ),
        "student must be given for a range of guidance .* got a Gaussians and none",
    ),
    (lambda: rule().generate(2, TOLD, guidance=5.0), r"guidance must lie in \[1.0, 4.0\].*got 5"),
    (
        lambda: rule(guidance=2.0).generate(2, TOLD, guidance=2.0),
        "guidance must be left out for a student of one weight, got 2",
    ),
    (
        lambda: rule(Preconditioned(network(), SCHEDULE)),
        "student must take the weight for a range of guidance",
    ),
    (lambda: network().with_guidance().with_guidance(), "a network that is not guided"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_refusals(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_condition_keeps_its_null() -> None:
    told = weighted(label_condition(torch.arange(3)), torch.ones(3))
    assert isinstance(told, Condition)
    assert set(told) == {"label", "guidance"}
    assert set(told.null) == {"label"}
