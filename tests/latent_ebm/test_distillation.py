"""Distillers with two scores: gradients, E-steps and fits against closed forms of exact
teachers.
"""

import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from latent_ebm.conditions import ClassLabels, Condition, label_condition
from latent_ebm.data.base import TensorSet, collate
from latent_ebm.denoisers import Denoiser, GaussianMixtureDenoiser
from latent_ebm.distillation import DistributionMatching, EMDistillation, LinearDenoiser, OneStep
from latent_ebm.distillation.base import Noise
from latent_ebm.distillation.em import JointPosterior
from latent_ebm.networks import MLP
from samplers import HMC, MALA, Gaussian, Langevin, ParallelTempering
from samplers.schedules import VE, Rectified, VPCosine, broadcast

VP = VPCosine()
ADAM = partial(torch.optim.Adam, lr=1e-2, betas=(0.0, 0.99))


class NetworkDenoiser(Denoiser):
    """A perceptron of (x_t, log-SNR), and of the label if there is one: nothing about it is
    exact.
    """

    def __init__(self, dim: int = 2, schedule=VP) -> None:
        super().__init__()
        self.schedule, self.network = schedule, MLP(dim + 2, dim, (16,), "tanh")

    def forward(self, x_t: Tensor, t: Tensor, *, label: Tensor | None = None) -> Tensor:
        extra = [
            self.schedule.log_snr(t).expand(len(x_t)),
            torch.zeros(len(x_t)) if label is None else label,
        ]
        return self.network(torch.cat([x_t, *(e.to(x_t)[:, None] for e in extra)], 1))


def mixture(schedule=VP, dtype=torch.float64) -> GaussianMixtureDenoiser:
    numbers = [0.3, 0.7], [[-1.0, 0.5], [1.2, -0.4]], [[0.4, 0.6], [0.7, 0.3]]
    return GaussianMixtureDenoiser(*(torch.tensor(n, dtype=dtype) for n in numbers), schedule)


def linear(dim: int = 2, latent: int = 2, scale: float = 0.8) -> nn.Linear:
    """A random affine student in double precision."""
    torch.manual_seed(1)
    student = nn.Linear(latent, dim).double()
    with torch.no_grad():
        student.weight.copy_(scale * (torch.eye(dim, latent) + 0.4 * torch.randn(dim, latent)))
        student.bias.copy_(torch.randn(dim) / 4)
    return student


def em(
    teacher: Denoiser, student: nn.Module, fake: Denoiser | None, latent=2, **kwargs
) -> EMDistillation:
    return EMDistillation(teacher, student, fake, latent, ADAM, **kwargs)


def gradient(rule, z: Tensor, seed: int = 3) -> Tensor:
    """Gradient of the student's loss at latents z."""
    torch.manual_seed(seed)
    rule.zero_grad()
    rule.student_loss(z, rule.student(z).detach(), Condition()).backward()
    return torch.cat([p.grad.flatten() for p in rule.student.parameters()])


def test_the_gap_is_the_difference_of_scores():
    """``grad log q / p = (alpha / sigma^2) (D_q - D_p)``, in every frame."""
    for schedule in (VP, VE(), Rectified()):
        student = linear()
        teacher, fake = mixture(schedule), LinearDenoiser(student, schedule)
        covariance = student.weight.detach() @ student.weight.detach().T
        exact = GaussianMixtureDenoiser(
            [1.0], student.bias.detach()[None], covariance[None], schedule
        ).double()
        rule = em(teacher, student, fake)
        x, t = torch.randn(50, 2).double(), torch.rand(50).double() * 0.9 + 0.05
        noise = Noise(t, *schedule(t), torch.randn(50, 2).double())
        alpha, sigma = noise.alpha[:, None], noise.sigma[:, None]
        x_t = alpha * x + sigma * noise.eps
        difference = teacher.score(x_t, t) - exact.score(x_t, t)
        assert torch.allclose(
            alpha / sigma**2 * rule.gap(x, noise, Condition()), difference, rtol=1e-6, atol=1e-8
        )


def test_linear_denoiser_knows_a_student_with_fewer_latents_than_numbers():
    """If W W^T is singular the samples lie on a line; the exact mixture is given a little width
    there.
    """
    student = linear(dim=3, latent=1)
    covariance = student.weight.detach() @ student.weight.detach().T + 1e-9 * torch.eye(3)
    exact = GaussianMixtureDenoiser(
        [1.0], student.bias.detach()[None], covariance[None], VP
    ).double()
    x_t, t = torch.randn(20, 3).double(), torch.rand(20).double() * 0.8 + 0.1
    assert torch.allclose(LinearDenoiser(student, VP)(x_t, t), exact(x_t, t), atol=1e-6)


def joint_log_density(
    rule: EMDistillation, exact: GaussianMixtureDenoiser, joint: JointPosterior, noise: Noise
):
    """log rho(eps, z(u)) written out, for automatic differentiation."""

    def log_density(position: Tensor) -> Tensor:
        eps, z = joint.split(position)
        x_t = noise.alpha[:, None] * rule.student(z) + noise.sigma[:, None] * eps
        ratio = rule.teacher.log_prob(x_t, noise.t) - exact.log_prob(x_t, noise.t)
        return ratio - 0.5 * eps.square().sum(1) - 0.5 * z.square().sum(1)

    return log_density


def test_the_joint_gradient_is_that_of_the_written_out_density():
    student = linear()
    rule = em(mixture(), student, LinearDenoiser(student, VP))
    exact = GaussianMixtureDenoiser(
        [1.0], student.bias.detach()[None], (student.weight @ student.weight.T).detach()[None], VP
    ).double()
    z = torch.randn(40, 2).double()
    noise = rule.draw_noise(student(z).detach())
    joint = JointPosterior(student, partial(rule.gap, condition=Condition()), z, noise, 0.16, 0.03)
    position = torch.randn(40, 4).double().requires_grad_()
    value = joint_log_density(rule, exact, joint, noise)(position)
    (expected,) = torch.autograd.grad(value.sum(), position)
    assert torch.allclose(
        joint.value_and_grad(position.detach())[1], expected, rtol=1e-6, atol=1e-8
    )
    # Steps of .16 in u are steps of .03 in z, less where alpha > sigma.
    assert torch.allclose(
        0.16 * joint.stretch[:, 0] ** 2, 0.03 * (noise.sigma / noise.alpha).clamp(max=1) ** 2
    )


@pytest.mark.parametrize("cancel", [True, False])
def test_latents_without_events_of_vectors_keep_their_shapes(cancel: bool):
    student = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Unflatten(1, (2, 2, 2)))
    teacher = GaussianMixtureDenoiser([1.0], torch.zeros(1, 2, 2, 2), [1.0], VP)
    fake = GaussianMixtureDenoiser([1.0], torch.ones(1, 2, 2, 2), [1.0], VP)
    rule = em(teacher, student, fake, (3, 2), cancel_noise=cancel)
    losses = rule.losses(torch.zeros(5, 1))
    assert losses.keys() == {"student"}  # an exact fake has nothing to learn
    losses["student"].backward()
    assert rule.generate(7)["x"].shape == (7, 2, 2, 2)
    assert rule.generate(7)["z"].shape == (7, 3, 2)


@pytest.mark.parametrize("power", [1.0, 0.3])
def test_one_step_with_z_at_rest_is_distribution_matching(power: float):
    """The gradients agree up to the step size, for networks of which nothing is exact."""
    torch.manual_seed(0)
    student, teacher, fake = (
        MLP(1, 2, (16,), "tanh").double(),
        NetworkDenoiser().double(),
        NetworkDenoiser().double(),
    )
    z = torch.randn(64, 1).double()
    common = {"log_snr": (-3.0, 4.0), "weight_power": power}
    one = gradient(
        em(teacher, student, fake, 1, sampler=Langevin(0.16, 1), z_step_size=0.0, **common), z
    )
    referee = gradient(DistributionMatching(teacher, student, fake, 1, ADAM, **common), z)
    assert torch.allclose(one, 0.16 * referee, rtol=1e-6, atol=0)
    two = gradient(
        em(teacher, student, fake, 1, sampler=Langevin(0.16, 2), z_step_size=0.0, **common), z
    )
    assert not torch.allclose(two / two.norm(), one / one.norm(), rtol=1e-3)


def test_distribution_matching_follows_the_integrated_reverse_divergence():
    """Gaussians of one dimension: the mean gradient is the derivative of int w KL(p_t || q_t)
    dlambda, by quadrature.
    """
    student = nn.Linear(1, 1).double()
    nn.init.constant_(student.weight, 0.5), nn.init.constant_(student.bias, 0.3)
    teacher = GaussianMixtureDenoiser([1.0], [[-0.4]], [1.1], VP).double()
    rule = DistributionMatching(
        teacher, student, LinearDenoiser(student, VP), 1, ADAM, log_snr=(-2.0, 3.0)
    )
    a, b = torch.tensor(0.5, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    log_snr = torch.linspace(-2, 3, 2001).double()
    alpha, sigma = VP.frame(log_snr)
    p = torch.distributions.Normal(alpha * b, (alpha**2 * a**2 + sigma**2).sqrt())
    q = torch.distributions.Normal(alpha * -0.4, (alpha**2 * 1.1**2 + sigma**2).sqrt())
    ((sigma / alpha) ** 2 * torch.distributions.kl_divergence(p, q)).mean().backward()
    grads = torch.stack(
        [gradient(rule, torch.randn(1000, 1).double(), seed) for seed in range(40)]
    )
    error = grads.std(0) / math.sqrt(len(grads))
    assert ((grads.mean(0) - torch.stack([a.grad, b.grad])).abs() < 4 * error + 2e-3 * error).all()
    assert (error < 0.05 * grads.mean(0).abs()).all()  # the test can tell


def exact_joint(
    teacher_cov: Tensor, teacher_mean: Tensor, student: nn.Linear, alpha: float, sigma: float
) -> Gaussian:
    """The Gaussian distribution rho(eps, z) of a Gaussian teacher and an affine student."""
    w, b = student.weight.detach(), student.bias.detach()
    eye = torch.eye(len(b)).double()
    q = torch.linalg.inv(alpha**2 * teacher_cov + sigma**2 * eye)
    p = torch.linalg.inv(alpha**2 * w @ w.T + sigma**2 * eye)
    to_x = torch.cat([sigma * eye, alpha * w], 1)
    precision = torch.eye(to_x.shape[1]).double() + to_x.T @ (q - p) @ to_x
    covariance = torch.linalg.inv(precision)
    pull = to_x.T @ (q @ (alpha * (teacher_mean - b)))
    return Gaussian(covariance @ pull, (covariance + covariance.T) / 2)


@pytest.mark.parametrize("log_snr", [-1.0, 1.0])
def test_a_long_chain_draws_from_the_joint_law_of_a_gaussian_teacher(log_snr: float):
    """Moments of (eps, z) by z-tests against the stationary covariance of unadjusted Langevin, (H
    (I - h H / 2))^-1, which at the steps used is within some percent of the exact one."""
    student, step, z_step, num = linear(scale=0.7), 0.05, 0.05, 8000
    mean, covariance = (
        torch.tensor([0.4, -0.3]).double(),
        torch.tensor([[0.9, 0.3], [0.3, 0.5]]).double(),
    )
    teacher = GaussianMixtureDenoiser([1.0], mean[None], covariance[None], VP).double()
    rule = em(
        teacher,
        student,
        LinearDenoiser(student, VP),
        sampler=Langevin(step, 250),
        z_step_size=z_step,
        cancel_noise=False,
        log_snr=(log_snr, log_snr + 1e-9),
    )
    torch.manual_seed(0)
    z = torch.randn(num, 2).double()
    noise = rule.draw_noise(student(z).detach())
    alpha, sigma = noise.alpha[0].item(), noise.sigma[0].item()
    z, shift = rule.infer(z, noise, {})
    draws = torch.cat([alpha / sigma * shift, z], 1)
    exact = exact_joint(covariance, mean, student, alpha, sigma)
    unit = torch.ones(4).double()
    unit[2:] = min(1.0, sigma / alpha) * math.sqrt(z_step / step)
    curved = unit[:, None] * exact.precision * unit  # in the coordinates of the chain
    stationary = (
        torch.linalg.inv(curved @ (torch.eye(4) - step / 2 * curved)) * unit[:, None] * unit
    )
    assert (stationary - exact.covariance).abs().max() < 0.06
    error = stationary.diagonal().div(num).sqrt()
    assert ((draws.mean(0) - exact.mean).abs() < 4.5 * error).all()
    spread = (
        (stationary**2 + torch.outer(stationary.diagonal(), stationary.diagonal())).div(num).sqrt()
    )
    assert ((torch.cov(draws.T) - stationary).abs() < 4.5 * spread).all()
    start = torch.cat(
        [torch.zeros(2).double(), torch.ones(2).double()]
    )  # the chain had somewhere to go
    assert ((exact.covariance.diagonal() - start).abs() > 5 * spread.diagonal()).any()


def test_the_cancelled_residual_is_eps_less_its_decayed_noise():
    """The noise that the sampler reports, carried along and decayed, is what ``shift`` leaves out,
    step for step.
    """
    torch.manual_seed(0)
    student, teacher, fake = (
        MLP(2, 2, (16,), "tanh").double(),
        NetworkDenoiser().double(),
        NetworkDenoiser().double(),
    )
    rule = em(teacher, student, fake, sampler=Langevin(0.16, 7), z_step_size=0.02)
    z = torch.randn(30, 2).double()
    noise = rule.draw_noise(student(z).detach())
    gap, start = (
        partial(rule.gap, condition=Condition()),
        torch.cat([noise.eps, torch.zeros_like(z)], 1),
    )

    def make() -> tuple[JointPosterior, torch.Generator]:
        return JointPosterior(student, gap, z, noise, 0.16, 0.02), torch.Generator().manual_seed(5)

    joint, generator = make()
    end = rule.sampler.sample(joint, start, generator=generator)
    target, generator = make()
    carried, position = noise.eps, start
    for state, info in rule.sampler.run(target, start, generator=generator):
        carried = (1 - 0.16) * carried + math.sqrt(2 * 0.16) * info.noise[:, :2]
        position = state.position
    assert torch.allclose(position, end)
    assert torch.allclose(
        joint.shift * joint.ratio, joint.split(end)[0] - carried, rtol=1e-9, atol=1e-12
    )


def linear_bias(
    student: nn.Linear, teacher_scale: float, z_step: float, num_steps: int, step: float = 0.16
) -> float:
    """``E[N z^K]`` at log-SNR 0 in a linear chain: the covariance of carried noise and position
    has its own recursion.
    """
    root = math.sqrt(0.5)
    covariance = torch.tensor([[teacher_scale**2]]).double()
    exact = exact_joint(covariance, torch.zeros(1).double(), student, root, root)
    unit = torch.tensor([1.0, math.sqrt(z_step / step)]).double()
    curved = unit[:, None] * exact.precision * unit
    both = torch.tensor([1.0, 0.0]).double()  # of N with eps and u: N starts as eps
    for _ in range(num_steps):
        both = (1 - step) * (torch.eye(2) - step * curved) @ both + 2 * step * torch.tensor(
            [1.0, 0.0]
        )
    return (both[1] * unit[1]).item()


def test_the_bias_of_cancellation_is_that_of_a_linear_chain_and_vanishes_with_the_step_of_z():
    student, num = linear(1, 1), 20_000
    nn.init.constant_(student.weight, 0.5)
    teacher = GaussianMixtureDenoiser([1.0], [[0.0]], [2.0], VP).double()
    fake, common = (
        LinearDenoiser(student, VP),
        {"sampler": Langevin(0.16, 6), "log_snr": (0.0, 1e-9)},
    )
    rules = [
        em(teacher, student, fake, 1, z_step_size=0.03, cancel_noise=c, **common)
        for c in (False, True)
    ]
    z0 = torch.randn(num, 1, generator=torch.Generator().manual_seed(0)).double()
    noise = rules[0].draw_noise(student(z0).detach())
    shifts = []
    for rule in rules:
        torch.manual_seed(1)
        z, shift = rule.infer(z0, noise, {})
        shifts.append(shift)
    product = (shifts[0] - shifts[1]) * (
        z - z0
    )  # sigma / alpha = 1; N is independent of the start
    error = product.std().item() / math.sqrt(num)
    biases = [linear_bias(student, 2.0, z_step, 6) for z_step in (0.03, 0.003, 0.0)]
    assert product.mean().item() == pytest.approx(biases[0], abs=4 * error)
    assert biases[0] > 6 * error
    assert biases[1] / biases[0] == pytest.approx(0.1, rel=0.1)
    assert biases[2] == 0


def test_cancellation_lowers_the_variance():
    student = linear(1, 1)
    teacher = GaussianMixtureDenoiser([0.7, 0.3], [[-1.0], [1.5]], [0.25, 0.25], VP).double()
    common = {"sampler": Langevin(0.16, 8), "z_step_size": 1e-3, "log_snr": (0.0, 6.0)}
    variance = []
    for cancel in (True, False):
        rule = em(teacher, student, LinearDenoiser(student, VP), 1, cancel_noise=cancel, **common)
        grads = torch.stack(
            [gradient(rule, torch.randn(100, 1).double(), seed) for seed in range(30)]
        )
        variance.append(grads.var(0))
    assert (variance[0] < variance[1] / 3).all()


def train(rule, rows: int, updates: int, lr: float) -> None:
    optimizer = torch.optim.Adam(rule.student.parameters(), lr, (0.0, 0.99))
    for _ in range(updates):
        optimizer.zero_grad()
        torch.stack(list(rule.losses(torch.empty(rows, 1)).values())).sum().backward()
        optimizer.step()


def test_sixteen_steps_cover_what_one_step_gives_up():
    """Experiment A in miniature: two unequal modes, an affine student of standard deviation .3,
    log-SNR from zero.
    """
    teacher = GaussianMixtureDenoiser([0.7, 0.3], [[-1.0], [1.5]], [0.25, 0.25], VE())
    scales = {}
    for num_steps in (1, 16):
        torch.manual_seed(0)
        student = nn.Linear(1, 1)
        nn.init.constant_(student.weight, 0.3), nn.init.zeros_(student.bias)
        fake = LinearDenoiser(student, VE())
        rule = em(
            teacher,
            student,
            fake,
            1,
            sampler=Langevin(0.16, num_steps),
            z_step_size=1.6e-3,
            log_snr=(0.0, 6.0),
        )
        train(rule, 128, 300, lr=2e-2)
        scales[num_steps] = abs(student.weight.item()), student.bias.item()
    assert scales[1][0] < 0.5
    assert scales[1][1] < -0.7
    assert scales[16][0] == pytest.approx(
        1.07, abs=0.15
    )  # moment matching: mean -.25, deviation 1.173
    assert scales[16][1] == pytest.approx(-0.25, abs=0.15)


def test_one_step_is_a_copy_of_the_denoiser_at_one_noise_level():
    teacher = NetworkDenoiser()
    student = OneStep(teacher, init_log_snr=-2.0)
    z = torch.randn(5, 2)
    _, sigma = VP.frame(torch.tensor(-2.0))
    assert torch.allclose(
        student(z), teacher(broadcast(sigma, z) * z, VP.time(torch.tensor(-2.0)))
    )
    rule = em(teacher, student, None)
    assert not any(p.requires_grad for p in rule.teacher.parameters())
    assert all(p.requires_grad for p in rule.student.parameters())
    with pytest.raises(ValueError, match="init_log_snr must lie in"):
        OneStep(teacher, init_log_snr=-40.0)


def network_rule(rule=EMDistillation, **kwargs):
    """A student and a fake that start as the teacher."""
    torch.manual_seed(0)
    teacher = NetworkDenoiser()
    return rule(
        teacher, OneStep(teacher, -3.0), deepcopy(teacher).requires_grad_(), 2, ADAM, **kwargs
    )


@pytest.mark.cpu
@pytest.mark.parametrize("rule", [EMDistillation, DistributionMatching])
def test_training_moves_student_and_fake_and_leaves_the_teacher(rule, tmp_path):
    module = network_rule(rule, conditioner=ClassLabels(), fake_lr=1e-3)
    before = deepcopy(module.state_dict())
    rows = DataLoader(
        TensorSet(torch.zeros(40, 1), torch.arange(40) % 3), batch_size=20, collate_fn=collate
    )
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    ema = EMAWeightAveraging(use_buffers=False, decay=0.5)
    Trainer(
        max_epochs=2,
        enable_checkpointing=False,
        callbacks=[ema],
        default_root_dir=tmp_path,
        **quiet,
    ).fit(module, rows, rows)
    moved = {
        name.split(".")[0]
        for name, value in module.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == {"student", "fake"}
    assert module.student.training
    assert not module.teacher.training
    student, fake = module.make_optimizers()[0].param_groups
    assert (student["lr"], fake["lr"]) == (1e-2, 1e-3)
    assert module.generate(4, label_condition(torch.arange(4)))["x"].shape == (4, 2)


class Checkpointed(nn.Module):
    """A student that keeps no activations."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, z: Tensor) -> Tensor:
        return checkpoint(self.student, z, use_reentrant=False)


def test_gradients_pass_through_a_checkpointed_student():
    plain = network_rule(sampler=Langevin(0.16, 3), z_step_size=0.01)
    kept = em(
        plain.teacher,
        Checkpointed(plain.student),
        plain.fake,
        sampler=plain.sampler,
        z_step_size=0.01,
    )
    z = torch.randn(20, 2)
    assert torch.allclose(gradient(plain, z), gradient(kept, z))


def test_chains_keep_their_precision_under_autocast(tmp_path):
    module, seen = network_rule(sampler=Langevin(0.16, 3), z_step_size=0.01), []
    infer = module.infer

    def watch(z: Tensor, noise: Noise, condition: Condition) -> tuple[Tensor, Tensor]:
        z, shift = infer(z, noise, condition)
        seen.extend([noise.eps.dtype, z.dtype, shift.dtype, module.student(z).dtype])
        return z, shift

    module.infer = watch
    rows = DataLoader(TensorSet(torch.zeros(20, 1)), batch_size=20, collate_fn=collate)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    where = {"enable_checkpointing": False, "default_root_dir": tmp_path, "limit_val_batches": 0}
    Trainer(max_epochs=1, precision="bf16-mixed", **quiet, **where).fit(module, rows, rows)
    assert seen == [torch.float32] * 3 + [torch.bfloat16]


def test_the_student_hears_the_label_at_every_place():
    """Two students in one: the two distributions of labels 0 and 1 are learnt apart."""
    teacher = GaussianMixtureDenoiser([0.5, 0.5], [[-2.0], [2.0]], [0.5, 0.5], VE())

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(2))

        def forward(self, z: Tensor, *, label: Tensor) -> Tensor:
            return 0.5 * z + self.shift[label][:, None]

    class ExactFake(Denoiser):
        schedule = VE()

        def __init__(self, student: nn.Module) -> None:
            super().__init__()
            self.student = student

        def forward(self, x_t: Tensor, t: Tensor, *, label: Tensor) -> Tensor:
            shift, sigma = self.student.shift[label][:, None], self.schedule(t)[1].to(x_t)[:, None]
            return shift + 0.25 / (0.25 + sigma**2) * (x_t - shift)

    torch.manual_seed(0)
    student = Two()
    rule = em(
        teacher,
        student,
        ExactFake(student),
        1,
        conditioner=ClassLabels(),
        sampler=Langevin(0.16, 4),
        log_snr=(-3.0, 3.0),
    )
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        rule.losses((torch.zeros(40, 1), torch.arange(40) % 2))["student"].backward()
        optimizer.step()
    assert student.shift.tolist() == pytest.approx([-2.0, 2.0], abs=0.3)


def test_the_student_rests_between_its_turns(monkeypatch):
    rule = network_rule(student_every=3)
    turns = []
    for step in range(6):
        monkeypatch.setattr(EMDistillation, "global_step", step)
        turns.append("student" in rule.losses(torch.zeros(8, 1)))
    assert turns == [True, False, False, True, False, False]


def test_refusals():
    teacher = NetworkDenoiser()
    make = partial(em, teacher, OneStep(teacher), None)
    with pytest.raises(ValueError, match="fake must be another denoiser of the schedule"):
        em(teacher, OneStep(teacher), teacher)
    with pytest.raises(ValueError, match="fake must be another denoiser of the schedule"):
        em(teacher, OneStep(teacher), NetworkDenoiser(schedule=VE()))
    with pytest.raises(ValueError, match="student must have parameters to train"):
        em(mixture(), OneStep(mixture()), None)
    with pytest.raises(ValueError, match=r"log_snr must lie in \[-15, 15\]"):
        make(log_snr=(-20.0, 6.0))
    with pytest.raises(ValueError, match="log_snr must be a least and a greatest value"):
        make(log_snr=(2.0, 2.0))
    with pytest.raises(ValueError, match="z_step_size must be finite and non-negative, got -1"):
        make(z_step_size=-1.0)
    with pytest.raises(ValueError, match="student_every must be an integer >= 1"):
        make(student_every=0)
    with pytest.raises(ValueError, match="batch must be"):
        make(conditioner=ClassLabels()).losses(torch.zeros(4, 1))
    student = linear()
    stiff = em(
        mixture(),
        student,
        LinearDenoiser(student, VP),
        sampler=Langevin(50.0, 300),
        z_step_size=50.0,
    )
    with pytest.raises(FloatingPointError, match="use a smaller step_size"):
        stiff.losses(torch.zeros(10, 1))
    joint = JointPosterior(
        student, None, torch.zeros(1, 2), stiff.draw_noise(torch.zeros(1, 2)), 0.1, 0.1
    )
    for sampler in (MALA(0.1, 1), HMC(0.1, 1, 1), ParallelTempering(Langevin(0.1, 1), (0.5, 1.0))):
        with pytest.raises(ValueError, match="must have a value, got JointPosterior, which is kn"):
            sampler.sample(joint, torch.zeros(1, 4))
        with pytest.raises(ValueError, match="EMDistillation: sampler must be a Langevin, got"):
            make(sampler=sampler)
