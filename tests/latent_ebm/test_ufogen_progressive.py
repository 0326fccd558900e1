"""UFOGen and progressive distillation: their targets and optima in closed form, with exact
teachers.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from latent_ebm.conditions import ClassLabels, Condition, label_condition
from latent_ebm.denoisers import Denoiser, GaussianMixtureDenoiser
from latent_ebm.distillation import Progressive, UFOGen
from latent_ebm.distillation.progressive import count_halvings, invert_step
from latent_ebm.distillation.ufogen import DenoiserCritic
from latent_ebm.guidance import ClassifierFree
from samplers import DDIM, VE, Rectified, Schedule, VPCosine, VPLinear
from tests.latent_ebm.tiny import QUIET

ADAM = partial(torch.optim.Adam, lr=1e-2)
SCALE, STEPS, NUM = 0.6, 4, 100_000
SCHEDULE = VPCosine(-10, 10)


def shrinkage(t: Tensor) -> Tensor:
    """``E[x_0 | x_t] / x_t`` for data N(0, SCALE^2)."""
    alpha, sigma = SCHEDULE(t)
    return alpha * SCALE**2 / (alpha**2 * SCALE**2 + sigma**2)


class Table(Denoiser):
    """``D(x_t, t) = a(t) x_t`` with a number for each of the times 0, 1 / STEPS, ..., 1; at first
    exact for N(0, SCALE^2).
    """

    def __init__(self, schedule: Schedule = SCHEDULE) -> None:
        super().__init__()
        self.schedule = schedule
        self.a = nn.Parameter(shrinkage(torch.linspace(0, 1, STEPS + 1)).float())
        self.times: list[float] = []

    def forward(self, x_t: Tensor, t: Tensor, **condition: Any) -> Tensor:
        self.times.append(float(t.flatten()[0]))
        return self.a[(t * STEPS).round().long()].view(-1, 1) * x_t


def mixture(dtype: torch.dtype = torch.float64) -> GaussianMixtureDenoiser:
    weights, means = (
        torch.tensor([0.3, 0.7], dtype=dtype),
        torch.tensor([[-1.0, 0.5], [1.2, -0.3]], dtype=dtype),
    )
    return GaussianMixtureDenoiser(weights, means, torch.tensor([0.3, 0.5], dtype=dtype), SCHEDULE)


def progressive(
    teacher: Denoiser | None = None, student: Denoiser | None = None, **kwargs
) -> Progressive:
    return Progressive(Table() if teacher is None else teacher, student, (1,), ADAM, **kwargs)


def ufogen(teacher: Denoiser | None = None, critic: nn.Module | None = None, **kwargs) -> UFOGen:
    return UFOGen(
        Table() if teacher is None else teacher,
        critic,
        (1,),
        ADAM,
        **{"num_steps": STEPS, **kwargs},
    )


@pytest.mark.parametrize(
    "schedule",
    [VPLinear(), VPCosine(-10, 10), Rectified(), VE(0.01, 20.0)],
    ids=lambda s: type(s).__name__,
)
def test_inverted_step_leads_where_it_should(schedule: Schedule) -> None:
    generator = torch.Generator().manual_seed(0)
    x_t, x_s = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    t = torch.tensor([1.0, 0.8, 0.5, 0.3, 0.25], dtype=torch.float64)
    s = t - torch.tensor([0.5, 0.1, 0.5, 0.2, 0.25], dtype=torch.float64)
    guess = invert_step(schedule, x_t, x_s, t, s)
    reached = DDIM(schedule, 1).step(lambda x, t: guess, x_t, t, s)
    torch.testing.assert_close(reached, x_s, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_one_step_of_the_target_is_two_of_the_exact_teacher(steps: int) -> None:
    """Rows at times of their own; the steps of the teacher are written out anew."""
    teacher, generator = mixture(), torch.Generator().manual_seed(0)
    made = Progressive(teacher, Table(), (2,), ADAM, teacher_steps=2 * steps, num_steps=steps)
    t = torch.randint(1, steps + 1, (50,), generator=generator).double() / steps
    x_t = torch.randn(50, 2, dtype=torch.float64, generator=generator)
    x = x_t
    for k in range(2):
        u, v = (t - (k + i) / (2 * steps) for i in (0, 1))
        (alpha_u, sigma_u), (alpha_v, sigma_v) = (
            [a[:, None] for a in SCHEDULE(w)] for w in (u, v)
        )
        x_0 = teacher(x, u)
        x = alpha_v * x_0 + sigma_v * (x - alpha_u * x_0) / sigma_u
    s = t - 1 / steps
    target = made.target(x_t, t, s, Condition(), 1.0)
    reached = DDIM(SCHEDULE, steps).step(lambda x, t: target, x_t, t, s)
    torch.testing.assert_close(reached, x, atol=1e-10, rtol=1e-10)


def ddim_factor(steps: int) -> float:
    """``x_0 / x_T`` of DDIM with the exact denoiser of N(0, SCALE^2), which is linear."""
    factor = 1.0
    for k in range(steps, 0, -1):
        t, s = (torch.tensor(i / steps, dtype=torch.float64) for i in (k, k - 1))
        (alpha_t, sigma_t), (alpha_s, sigma_s), a = SCHEDULE(t), SCHEDULE(s), shrinkage(t)
        factor *= float(alpha_s * a + sigma_s * (1 - alpha_t * a) / sigma_t)
    return factor


@pytest.mark.cpu
def test_halving_twice_keeps_the_map_of_a_gaussian(tmp_path) -> None:
    """4 -> 2 -> 1 steps: both regressions are on linear targets, so that the last student is the
    first teacher's map.
    """
    torch.manual_seed(0)
    made = progressive(teacher_steps=STEPS, num_steps=1, stage_length=150)
    loader = DataLoader(SCALE * torch.randn(1500, 1), batch_size=50)  # pyright: ignore[reportArgumentType]
    Trainer(max_epochs=10, default_root_dir=tmp_path, **QUIET).fit(made, loader, loader)
    torch.manual_seed(1)
    x_T = torch.randn(10, 1)
    torch.manual_seed(1)
    found = made.generate(10)["x"] / x_T
    assert ddim_factor(1) < 0.7 * ddim_factor(STEPS), (
        "the student must have had something to learn"
    )
    torch.testing.assert_close(
        found, torch.full_like(found, ddim_factor(STEPS)), rtol=5e-3, atol=0
    )
    exact = shrinkage(torch.linspace(0, 1, STEPS + 1)).float()
    torch.testing.assert_close(made.teacher.a, exact, msg="the teacher must not move")


def test_stages_follow_the_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    made = progressive(teacher_steps=8, num_steps=1, stage_length=10)
    made.student.a.data.fill_(0.5)
    x, t, s = (
        torch.ones(1, 1),
        torch.ones(1, dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
    )
    targets, seen = [], {}
    for step in (0, 9, 10, 19, 20, 29, 30, 1000):
        monkeypatch.setattr(Progressive, "global_step", step)
        made.on_train_batch_start(None, 0)
        targets.append(made.target(x, t, s, Condition(), 1.0).item())
        seen[step] = made.student_steps
        made.student.a.data.mul_(0.9)
    assert seen == {0: 4, 9: 4, 10: 2, 19: 2, 20: 1, 29: 1, 30: 1, 1000: 1}
    assert targets[0] == targets[1], "the first teacher does not move"
    assert targets[2] == targets[3] != targets[0], (
        "the next one is the student as it was when the stage began"
    )


@pytest.mark.cpu
def test_a_stage_is_measured_with_its_own_teacher(tmp_path: Path) -> None:
    """At the end of a stage, and of a checkpoint of that moment, which another run goes on with:
    the next stage begins with its first batch.
    """
    stages: list[tuple[int, float]] = []

    class Look(Callback):
        def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
            stages.append((pl_module.stage, pl_module.previous.a.sum().item()))

    def fit(epochs: int, path: Path | None) -> Progressive:
        torch.manual_seed(0)
        made = progressive(teacher_steps=4, num_steps=1, stage_length=3)
        run = Trainer(max_epochs=epochs, callbacks=[Look()], default_root_dir=tmp_path, **options)
        run.fit(made, loader, loader, ckpt_path=path, weights_only=True)
        if path is None:
            run.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return made

    options = {**QUIET, "num_sanity_val_steps": 0}
    loader = DataLoader(SCALE * torch.randn(60, 1), batch_size=20)  # pyright: ignore[reportArgumentType]
    first = progressive(teacher_steps=4, num_steps=1).student.a.sum().item()
    once = fit(1, None)
    assert stages == [(0, first)]
    twice, resumed = fit(2, None), fit(2, tmp_path / "1.ckpt")
    assert stages[-1] == stages[-2] == (1, once.student.a.sum().item())
    assert torch.equal(twice.student.a, resumed.student.a)


def test_guidance_is_distilled() -> None:
    """The first teacher is guided, and its labels are those of the batch."""
    teacher, x = mixture(), torch.randn(6, 2, dtype=torch.float64)
    options = {"teacher_steps": 2, "num_steps": 1, "conditioner": ClassLabels(), "guidance": 2.0}
    made = Progressive(teacher, Table(), (2,), ADAM, **options)
    told = label_condition(torch.tensor([0, 1, 0, 1, 0, 1]))
    t = torch.ones(6, dtype=torch.float64)
    expected = ClassifierFree(teacher, 2.0, told.unknown())
    two = DDIM(SCHEDULE, 2).sample(partial(expected, **told), x)
    one = DDIM(SCHEDULE, 1).step(lambda x, t: made.target(x, t, t - 1, told, 2.0), x, t, t - 1)
    torch.testing.assert_close(one, two, atol=1e-10, rtol=1e-10)
    assert not torch.allclose(two, DDIM(SCHEDULE, 2).sample(teacher, x), atol=0.01)
    with pytest.raises(ValueError, match="batch must be"):
        made.losses(x)


def test_ufogen_without_its_game_is_denoising() -> None:
    """The reconstruction alone rests at the exact denoiser of N(0, SCALE^2), and nowhere else but
    where x_k is noise.
    """
    made = ufogen(reconstruction=2.0)
    torch.manual_seed(0)
    x = SCALE * torch.randn(NUM, 1)
    for off, low, high in ((0.0, 0.0, 0.01), (0.2, 0.015, 1.0)):
        made.generator.a.data += off
        loss = made.generator_losses(x, Condition())["reconstruction"]
        (grad,) = torch.autograd.grad(loss, made.generator.a)
        assert grad[0] == grad[STEPS] == 0, "clean data are no input, and noise has no memory"
        assert all(low <= g.abs() < high for g in grad[1:STEPS]), grad


def test_reconstruction_is_the_divergence_of_transitions() -> None:
    """``q(x_k | x_{k-1})`` is ``N(r x_{k-1}, v)``, of which the marginals have the variance
    sigma_k^2.
    """
    made = ufogen(reconstruction=3.0)
    with torch.no_grad():
        made.generator.a.zero_()  # guesses 0, so that x_{k-1} - x'_{k-1} = alpha_{k-1} x_0
    expected = 0.0
    for k in range(1, STEPS):
        (alpha, sigma), (alpha_s, sigma_s) = (
            SCHEDULE(torch.tensor(i / STEPS)) for i in (k, k - 1)
        )
        if k == 1:
            alpha_s, sigma_s = torch.ones(()), torch.zeros(())
        ratio = alpha / alpha_s
        transition = torch.distributions.Normal(
            ratio * alpha_s * 1.5, (sigma**2 - ratio**2 * sigma_s**2).sqrt()
        )
        other = torch.distributions.Normal(torch.zeros_like(alpha), transition.scale)
        expected += 3.0 * torch.distributions.kl_divergence(transition, other).item() / STEPS
    torch.manual_seed(0)
    loss = made.generator_losses(torch.full((NUM, 1), 1.5), Condition())["reconstruction"].item()
    assert loss == pytest.approx(expected, rel=0.02)


def test_ufogen_starts_from_the_teacher_and_a_critic_that_knows_nothing() -> None:
    teacher = Table()
    made, x = ufogen(teacher), torch.randn(100, 1)
    losses = made.losses(x)
    assert losses["critic"].item() == pytest.approx(2 * math.log(2))
    assert losses["generator"].item() == pytest.approx(math.log(2))
    assert losses["penalty"].item() == 0
    assert made.generator is not teacher
    assert torch.equal(made.generator.a, teacher.a)
    copies = {id(p) for part in (made.generator, made.critic) for p in part.parameters()}
    assert id(teacher.a) not in copies
    assert len(copies) == 4, "student, critic's denoiser, its head and bias"


class Recorder(nn.Module):
    """A critic that keeps what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(())), []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append((x, t))
        return self.weight * x[:, 0]


def test_critic_of_ufogen_sees_forward_diffusions() -> None:
    """Of the data and of the guess alike, at the same times 0, ..., 1 - 1 / T."""
    critic = Recorder()
    made = ufogen(critic=critic, penalty=0.0)
    with torch.no_grad():
        made.generator.a.zero_()  # guesses 0
    torch.manual_seed(0)
    made.critic_losses(torch.full((NUM, 1), 3.0), Condition())
    (real, t), (fake, t_fake) = critic.seen
    assert torch.equal(t, t_fake)
    assert sorted(t.unique().tolist()) == [0.0, 0.25, 0.5, 0.75]
    for value in t.unique():
        alpha, sigma = SCHEDULE(value) if value else (torch.ones(()), torch.zeros(()))
        for x, mean in ((real, 3 * alpha), (fake, 0 * alpha)):
            assert x[t == value].mean().item() == pytest.approx(float(mean), abs=0.03)
            assert x[t == value].std().item() == pytest.approx(float(sigma), abs=0.02)


def test_independent_levels_of_data_and_guesses() -> None:
    """A guess from pure noise is also judged without noise: levels of data, guesses and inputs of
    the generator are uniform, and know nothing of each other.
    """
    critic = Recorder()
    made = ufogen(critic=critic, penalty=0.0, independent=True)
    with torch.no_grad():
        made.generator.a.copy_(torch.tensor([0.0, 0, 0, 0, 1e3]))  # 0, and huge from k = T
    torch.manual_seed(0)
    made.critic_losses(torch.full((NUM, 1), 3.0), Condition())
    (real, t), (fake, t_fake) = critic.seen
    for level, times in enumerate((t, t_fake)):
        counts = times.mul(4).long().bincount(minlength=4) / NUM
        torch.testing.assert_close(counts, torch.full((4,), 0.25), atol=0.01, rtol=0)
        x = (real, fake)[level][times == 0]
        assert (x == 3).all() if level == 0 else ((x == 0) | (x.abs() > 5)).float().mean() > 0.98
    pair = torch.corrcoef(torch.stack([t, t_fake]))
    assert pair[0, 1].abs() < 0.015
    from_noise = fake[:, 0].abs() > 20
    assert from_noise.float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert from_noise[t_fake == 0].float().mean().item() == pytest.approx(0.25, abs=0.02)


class Listening(nn.Module):
    """A critic that keeps the label that it is told, and a generator that does so too."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.a, self.heard = SCHEDULE, nn.Parameter(torch.ones(())), []

    def forward(self, x: Tensor, t: Tensor, *, label: Tensor) -> Tensor:
        self.heard.append(label)
        return self.a * x[:, 0]


class ListeningTable(Table):
    def forward(self, x_t: Tensor, t: Tensor, *, label: Tensor) -> Tensor:
        self.times.append(label.tolist())  # pyright: ignore[reportArgumentType]
        return super().forward(x_t, t)


@pytest.mark.parametrize("independent", [False, True])
def test_generator_and_critic_are_told_the_condition_of_every_row(independent: bool) -> None:
    """For data and guesses, with and without the penalty, in either half of a batch."""
    critic, told = Listening(), label_condition(torch.tensor([2, 0, 1]))
    made = ufogen(ListeningTable(), critic, independent=independent, conditioner=ClassLabels(3))
    made.losses((torch.randn(3, 1), told["label"]))
    assert len(critic.heard) == 4  # data, guesses, the penalty at data; guesses again
    assert all(torch.equal(label, told["label"]) for label in critic.heard)
    heard = [seen for seen in made.generator.times if isinstance(seen, list)]
    assert heard == [[2, 0, 1]] * 2


@pytest.mark.parametrize(
    ("num_steps", "times"),
    [(1, [1.0]), (2, [1.0, 0.5]), (4, [1.0, 0.75, 0.5, 0.25])],
)
def test_ufogen_samples_in_one_step_or_few(num_steps: int, times: list[float]) -> None:
    """Every guess is noised to the next time; with guesses of 2 that is all there is to see."""
    made = ufogen()
    table, inputs = made.generator, []

    def guess(x: Tensor, t: Tensor) -> Tensor:
        inputs.append((x.mean().item(), float(t)))
        return torch.full_like(x, 2.0)

    table.forward = guess
    torch.manual_seed(0)
    assert made.generate(400, num_steps=num_steps)["x"].eq(2).all()
    assert [t for _, t in inputs] == times
    for mean, t in inputs:
        expected = 0.0 if t == 1 else 2 * float(SCHEDULE(torch.tensor(t))[0])
        assert mean == pytest.approx(expected, abs=0.25)


@pytest.mark.cpu
def test_rules_train_and_generate(tmp_path) -> None:
    loader = DataLoader(SCALE * torch.randn(60, 1), batch_size=20)  # pyright: ignore[reportArgumentType]
    for made in (ufogen(), progressive(teacher_steps=4, stage_length=2)):
        part = made.generator if isinstance(made, UFOGen) else made.student
        before = part.get_parameter("a").clone()
        Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET).fit(made, loader, loader)
        assert not torch.equal(before, part.get_parameter("a"))
        assert made.generate(7)["x"].shape == (7, 1)


def test_head_of_the_critic() -> None:
    """It reads the guess and the noise: at the clean end, where the guess is x, only the second
    says what is learnt.
    """
    critic = DenoiserCritic(Table(), (1,))
    critic.head.weight.data = torch.tensor([[2.0, -3.0]])
    x, t = torch.randn(5, 1), torch.full((5,), 0.5)
    (alpha, sigma), guess = SCHEDULE(t[0]), shrinkage(t)[0] * x[:, 0].double()
    expected = 2 * guess - 3 * (x[:, 0] - alpha * guess) / sigma
    torch.testing.assert_close(critic(x, t), expected.float())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ufogen(mixture()),
            "teacher must have parameters to start the student from, got GaussianMixture",
        ),
        (
            lambda: ufogen(reconstruction=-1.0),
            "reconstruction must be finite and non-negative, got -1",
        ),
        (lambda: ufogen(critic="x"), "UFOGen: critic must be a Module, got 'x'"),  # pyright: ignore
        (lambda: ufogen(independent="no"), "UFOGen: independent must be a bool, got 'no'"),
        (lambda: ufogen(latents="x"), "UFOGen: latents must be a LatentSpace, got 'x'"),
        (lambda: ufogen().generate(1, num_steps=5), "num_steps must divide 4, got 5"),
        (
            lambda: progressive(mixture()),
            "student must be another denoiser than the teacher, with parameters",
        ),
        (
            lambda: progressive(Table(), Table(VPLinear())),
            "student must have the schedule VPCosine.* got VPLinear",
        ),
        (lambda: progressive(stage_length=0), "stage_length must be an integer >= 1, got 0"),
        (
            lambda: count_halvings(12, 4),
            "teacher_steps must be num_steps >= 1 times 2, 4, 8, .* got 12",
        ),
        (lambda: count_halvings(4, 4), "got 4 and num_steps 4"),
        (lambda: count_halvings(4, 0), "got 4 and num_steps 0"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
