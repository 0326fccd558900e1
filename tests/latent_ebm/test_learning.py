"""Learning rules: gradients of what is needed, devices, resuming, processes, and refusals."""

import copy
import math
import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from latent_ebm import (
    AmortizedPosterior,
    EnergyPrior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    MCMCPosterior,
    PosteriorLatents,
    RatioPrior,
    WarmStart,
)
from latent_ebm.data.base import TensorSet, collate
from latent_ebm.denoisers import Denoiser, Preconditioned
from latent_ebm.distillation import (
    DistributionMatching,
    EMDistillation,
    OneStep,
    Progressive,
    UFOGen,
)
from latent_ebm.distillation.base import Noise
from latent_ebm.learning import (
    Augment,
    Denoising,
    DiffusionGAN,
    MultiStageRatio,
    RatioStages,
    ScoreMatching,
    SelfAdversarial,
    ShortRunMLE,
    Variational,
    VICReg,
    fit_batches,
)
from latent_ebm.learning.base import LearningRule
from latent_ebm.networks import MLP, Critic, DenoiserMLP, EnergyMLP, ResidualEncoder, WithLatent
from samplers import DDIM, MALA, GradientFlow, Langevin, PersistentChains, Sampler, VPCosine

DIM, EVENT, NUM = 2, 3, 40
ADAM = partial(torch.optim.Adam, lr=1e-2)


def decoder() -> nn.Module:
    return nn.Linear(DIM, EVENT)


def encoder() -> nn.Module:
    return nn.Linear(EVENT, 2 * DIM)


def energy_model() -> LatentModel:
    prior = EnergyPrior(EnergyMLP(DIM, (8,)), GaussianPrior(DIM), Langevin(0.05, 5))
    return LatentModel(prior, GaussianLikelihood(decoder(), 0.5, learn_scale=True))


def ratio_model() -> LatentModel:
    return LatentModel(
        RatioPrior(GaussianPrior(DIM), [], MALA(0.1, 3)), GaussianLikelihood(decoder(), 0.5)
    )


def stages(**kwargs) -> RatioStages:
    return RatioStages(EnergyMLP(DIM, (8,)), DIM, pool_size=50, **kwargs)


def mle(**kwargs) -> ShortRunMLE:
    return ShortRunMLE(energy_model(), MCMCPosterior(Langevin(0.01, 3)), ADAM, **kwargs)


def mle_persistent() -> ShortRunMLE:
    posterior = MCMCPosterior(Langevin(0.01, 3), PersistentChains(NUM, DIM))
    return ShortRunMLE(
        energy_model(),
        posterior,
        ADAM,
        PersistentChains(20, DIM),
        inference=MCMCPosterior(Langevin(0.01, 9)),
    )


def ratio(**kwargs) -> MultiStageRatio:
    posterior = MCMCPosterior(Langevin(0.01, 3))
    eager = stages(refresh=MALA(0.1, 1), patience=1, min_drop=1.0, max_stages=3)
    eager.tolerance = -1.0
    return MultiStageRatio(ratio_model(), posterior, eager, ADAM, **kwargs)


def variational(prior: str = "energy") -> Variational:
    posterior = AmortizedPosterior(encoder())
    if prior == "ratio":
        return Variational(ratio_model(), posterior, ADAM, stages=stages(), prior_lr=1e-3)
    model = energy_model()
    if prior == "gaussian":
        model = LatentModel(GaussianPrior(DIM), model.likelihood)
    return Variational(model, posterior, ADAM)


def data_space(sampler: Sampler) -> EnergyPrior:
    return EnergyPrior(EnergyMLP(EVENT, (8,)), GaussianPrior(EVENT), sampler)


class Widen(nn.Module):
    """Rows (n, EVENT) as images (n, 3, 8, 8), which ``Augment`` takes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, EVENT, 1, 1).expand(-1, 3, 8, 8)


def vicreg() -> VICReg:
    encoder = nn.Sequential(ResidualEncoder(3, 2), nn.Linear(8, 4))
    return VICReg(encoder, nn.Linear(4, 6), nn.Sequential(Widen(), Augment()), ADAM)


def adversarial(sampler: Sampler | None = None, **kwargs) -> SelfAdversarial:
    return SelfAdversarial(data_space(sampler or GradientFlow(0.3, "rk4", 2)), ADAM, **kwargs)


class PlainDenoiser(Denoiser):
    """A network that says x_0."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.network = VPCosine(-10, 10), DenoiserMLP(EVENT, (8,))

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, **condition) -> torch.Tensor:
        return self.network(x_t, t.expand(len(x_t)))


def diffusion_gan() -> DiffusionGAN:
    generator, critic = (
        WithLatent(DenoiserMLP(EVENT + 2, (8,))),
        Critic(MLP(2 * EVENT + 1, 1, (8,))),
    )
    return DiffusionGAN(
        generator, critic, VPCosine(-10, 10), (EVENT,), (2,), ADAM, num_steps=2, critic_lr=2e-2
    )


def em_distillation(**kwargs) -> EMDistillation:
    teacher = PlainDenoiser()
    return EMDistillation(
        teacher, OneStep(teacher), None, (EVENT,), ADAM, Langevin(0.1, 3), 0.01, **kwargs
    )


def distribution_matching() -> DistributionMatching:
    return DistributionMatching(
        PlainDenoiser(), MLP(DIM, EVENT, (8,)), PlainDenoiser(), DIM, ADAM, fake_lr=1e-3
    )


def optimizers(rule: LearningRule) -> list[torch.optim.Optimizer]:
    return rule.make_optimizers()


def denoising(shape: int = EVENT, **kwargs) -> Denoising:
    schedule = VPCosine(-10, 10)
    denoiser = Preconditioned(DenoiserMLP(shape, (8,)), schedule)
    return Denoising(denoiser, DDIM(schedule, 2), (shape,), ADAM, **kwargs)


def latent_denoising() -> Denoising:
    latents = PosteriorLatents(energy_model(), AmortizedPosterior(encoder()))
    return denoising(DIM, latents=latents)


RULES = {
    "mle": mle,
    "mle warm": partial(mle, prior_chains="warm"),
    "mle persistent": mle_persistent,
    "mle warm-started": lambda: ShortRunMLE(
        energy_model(), WarmStart(AmortizedPosterior(encoder()), Langevin(0.01, 2)), ADAM
    ),
    "ratio": ratio,
    "variational gaussian": partial(variational, "gaussian"),
    "variational energy": variational,
    "variational ratio": partial(variational, "ratio"),
    "mle by flow": lambda: ShortRunMLE(energy_model(), MCMCPosterior(GradientFlow(0.2)), ADAM),
    "self-adversarial": adversarial,
    "self-adversarial persistent": lambda: adversarial(
        Langevin(0.01, 3), start=PersistentChains(NUM, EVENT)
    ),
    "self-adversarial through": lambda: adversarial(negatives="through", start="warm"),
    "self-adversarial entropy": lambda: adversarial(
        Langevin(0.01, 3), negatives="through+entropy"
    ),
    "vicreg": vicreg,
    "denoising": denoising,
    "denoising of latents": latent_denoising,
    "diffusion gan": diffusion_gan,
    "ufogen": lambda: UFOGen(PlainDenoiser(), None, (EVENT,), ADAM),
    "progressive": lambda: Progressive(PlainDenoiser(), None, (EVENT,), ADAM, teacher_steps=4),
    "em distillation": em_distillation,
    "em distillation uncancelled": partial(em_distillation, cancel_noise=False),
    "distribution matching": distribution_matching,
    "score matching": lambda: ScoreMatching(data_space(MALA(0.1, 3)), ADAM, noise=0.2),
}


def data(num: int = NUM) -> torch.Tensor:
    return torch.randn(num, EVENT, generator=torch.Generator().manual_seed(0))


def loader(num: int = NUM, shuffle: bool = False) -> DataLoader:
    return DataLoader(TensorSet(data(num)), batch_size=10, shuffle=shuffle, collate_fn=collate)


def trainer(tmp_path, **kwargs) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    where = {"accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path}
    return Trainer(inference_mode=False, **{**quiet, **where, **kwargs})


@pytest.mark.parametrize("make", RULES.values(), ids=RULES.keys())
def test_one_step_runs_on_meta_tensors(make):
    rule = make().to("meta")
    batch = (data(10).to("meta"), torch.zeros(10, device="meta"), torch.arange(10, device="meta"))
    total = torch.stack(list(rule.losses(batch).values())).sum()
    total.backward()
    for optimizer in optimizers(rule):
        optimizer.step()
    assert total.shape == ()
    assert all(p.grad is None or p.grad.is_meta for p in rule.parameters())


@pytest.mark.parametrize("make", RULES.values(), ids=RULES.keys())
def test_every_trained_parameter_gets_a_gradient_and_sampling_leaves_none(make):
    rule = make()
    groups = [group for optimizer in optimizers(rule) for group in optimizer.param_groups]
    assert all(parameter.grad is None for group in groups for parameter in group["params"])
    losses = rule.losses((data(10), torch.zeros(10), torch.arange(10)))
    assert all(p.grad is None for p in rule.parameters())
    torch.stack(list(losses.values())).sum().backward()
    trained = {id(p) for group in groups for p in group["params"]}
    frozen_guess = {
        id(p)
        for p in getattr(getattr(rule, "posterior", None), "amortized", nn.Module()).parameters()
    }
    unseen = (
        {"ebm.network.layers.1.bias"} if isinstance(rule, ScoreMatching) else set()
    )  # a constant has no score
    for name, parameter in rule.named_parameters():
        if id(parameter) in trained - frozen_guess and name not in unseen:
            assert parameter.grad is not None, name


@pytest.mark.parametrize("name", [name for name in RULES if name != "vicreg"])
def test_samples_are_constants(name: str):
    """They may be handed to numpy and to a plot."""
    assert not any(value.requires_grad for value in RULES[name]().generate(4).values())


def test_parameter_groups_are_disjoint_and_take_the_prior_rate():
    rule = mle(prior_lr=1e-5)
    prior, rest = rule.make_optimizers()[0].param_groups
    assert prior["lr"] == 1e-5
    assert rest["lr"] == 1e-2
    assert {id(p) for p in prior["params"]} == {id(p) for p in rule.model.prior.parameters()}
    assert {id(p) for p in rest["params"]} == {id(p) for p in rule.model.likelihood.parameters()}


def test_mle_prior_gradient_is_the_closed_form_of_an_exponential_family():
    """With E(z) = -a z the prior is N(a, 1), so the gradient of -E_data[log p] in a is a -
    mean(z_data).
    """
    energy = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Flatten(0))
    nn.init.constant_(energy[0].weight, -0.7)
    prior = EnergyPrior(energy, GaussianPrior(1), MALA(0.8, 40))
    rule = ShortRunMLE(
        LatentModel(prior, GaussianLikelihood(nn.Linear(1, 1), 1.0)),
        MCMCPosterior(MALA(0.5, 40)),
        ADAM,
    )
    torch.manual_seed(0)
    num = 100_000
    z_data, z_model = (
        torch.randn(num, 1) * 0.5 + 2.0,
        rule.sample_prior(prior, torch.empty(num, 1)),
    )
    (prior(z_model).mean() - prior(z_data).mean()).backward()
    assert -energy[0].weight.grad.item() == pytest.approx(0.7 - 2.0, abs=5 * math.sqrt(1.25 / num))


def test_mle_of_a_likelihood_held_fixed_learns_the_prior_alone():
    rule = mle()
    rule.model.likelihood.requires_grad_(False)
    before = copy.deepcopy(rule.state_dict())
    assert set(rule.losses(data(10))) == {"prior"}
    fit_batches(rule, [data(10)] * 2, 2)
    changed = {k for k, v in rule.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all(name.startswith("model.prior.") for name in changed)


def test_variational_bound_of_a_linear_model_is_tight_at_the_exact_posterior():
    """For x = z + N(0, 1), z ~ N(0, 1): q(z|x) = N(x/2, 1/2) makes the bound log N(x; 0, 2),
    whatever z is drawn.
    """
    likelihood = GaussianLikelihood(nn.Linear(1, 1), 1.0)
    q = nn.Linear(1, 2)
    with torch.no_grad():
        likelihood.decoder.weight.fill_(1), likelihood.decoder.bias.zero_()
        (
            q.weight.copy_(torch.tensor([[0.5], [0.0]])),
            q.bias.copy_(torch.tensor([0.0, 0.5 * math.log(0.5)])),
        )
    rule = Variational(LatentModel(GaussianPrior(1), likelihood), AmortizedPosterior(q), ADAM)
    x = torch.tensor([[0.3], [-1.2], [2.5]])
    bound = sum(loss.item() for loss in rule.losses(x).values())
    exact = -torch.distributions.Normal(0.0, math.sqrt(2)).log_prob(x).mean().item()
    assert bound == pytest.approx(exact, abs=1e-5)


RESUMED = {"mle": mle_persistent} | {
    name: RULES[name] for name in ("ratio", "variational energy", "denoising", "diffusion gan")
}
RESUMED["em distillation"] = partial(em_distillation, student_every=3)
RESUMED["progressive"] = lambda: Progressive(
    PlainDenoiser(), None, (EVENT,), ADAM, teacher_steps=8, stage_length=6
)


@pytest.mark.cpu
@pytest.mark.parametrize("make", RESUMED.values(), ids=RESUMED.keys())
def test_resuming_gives_the_weights_of_an_uninterrupted_run(make, tmp_path):
    def fit(seed, ckpt=None):
        torch.manual_seed(seed)
        rule = make()
        saver = ModelCheckpoint(
            tmp_path, save_top_k=-1, filename="{epoch}", save_on_train_epoch_end=True
        )
        run = trainer(tmp_path, max_epochs=5, callbacks=[saver])
        run.fit(rule, loader(shuffle=True), loader(), ckpt_path=ckpt, weights_only=True)
        return {
            name: value
            for name, value in rule.state_dict().items()
            if isinstance(value, torch.Tensor)
        }

    whole = fit(seed=3)
    resumed = fit(seed=99, ckpt=tmp_path / "epoch=2.ckpt")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def deterministic_rule() -> ShortRunMLE:
    """Chains without noise, and a descent step as large as the gradient: the new weights tell the
    gradient.
    """
    torch.manual_seed(0)
    model = energy_model()
    model.prior.sampler = Langevin(0.05, 3, temperature=0.0)
    posterior = MCMCPosterior(Langevin(0.01, 3, temperature=0.0), start="zero")
    return ShortRunMLE(model, posterior, partial(torch.optim.SGD, lr=1.0), prior_chains="warm")


class Constant(nn.Module):
    """A generator that says the same whatever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(EVENT))

    def forward(self, x: torch.Tensor, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return self.value.expand_as(x)


def deterministic_gan() -> DiffusionGAN:
    """One step, of noise to which neither network listens."""
    torch.manual_seed(0)
    critic, descent = (
        Critic(MLP(EVENT + 1, 1, (8,)), paired=False),
        partial(torch.optim.SGD, lr=1.0),
    )
    return DiffusionGAN(
        Constant(), critic, VPCosine(-10, 10), (EVENT,), (1,), descent, num_steps=1
    )


class Still(EMDistillation):
    """Latents are the rows of the batch, and there is no other noise."""

    def losses(self, batch):
        self.rows = batch[0]
        return super().losses(batch)

    def draw_latents(self, rows: int) -> torch.Tensor:
        return self.rows

    def draw_noise(self, x: torch.Tensor) -> Noise:
        t = x.new_full((len(x),), 0.5)
        return Noise(t, *self.teacher.schedule(t), torch.zeros_like(x))

    def fake_loss(self, x: torch.Tensor, condition: dict[str, torch.Tensor]) -> torch.Tensor:
        return (self.fake(x, torch.tensor(0.5)) - x).square().mean()


def deterministic_distiller() -> EMDistillation:
    """Chains without noise from latents that the batch sets."""
    torch.manual_seed(0)
    teacher, descent = PlainDenoiser(), partial(torch.optim.SGD, lr=1.0)
    return Still(
        teacher,
        OneStep(teacher),
        PlainDenoiser(),
        (EVENT,),
        descent,
        Langevin(0.16, 3, temperature=0.0),
        0.01,
    )


SHARED = {
    "mle": (deterministic_rule, "ddp", 1, "model.likelihood.decoder.weight"),
    "diffusion gan": (deterministic_gan, "ddp_find_unused_parameters_true", 4, "generator.value"),
    "em distillation": (
        deterministic_distiller,
        "ddp",
        2,
        "student.denoiser.network.layers.0.weight",
    ),
}


def fit_steps(
    rule: LearningRule, folder: Path, steps: int, batch_size: int, **kwargs: Any
) -> LearningRule:
    """``rule`` after ``steps`` updates."""
    rows = DataLoader(TensorSet(data(20)), batch_size=batch_size, collate_fn=collate)
    once = {"max_steps": steps, "enable_checkpointing": False, "limit_val_batches": 0}
    trainer(folder, **once, **kwargs).fit(rule, rows, rows)
    return rule


def fit_as_one_of_two(rank: int, folder: Path, port: int) -> None:
    """What each of two processes does: every rule in turn, on its half of the batch."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    for name, (make, strategy, steps, _) in SHARED.items():
        rule = fit_steps(make(), folder, steps, batch_size=10, strategy=strategy, devices=2)
        torch.save(rule.state_dict(), folder / f"{name} {rank}.pt")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The folder where two processes left the weights of all rules; starting them is what takes
    the time.
    """
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(fit_as_one_of_two, (folder, port), nprocs=2)
    return folder


@pytest.mark.cpu
@pytest.mark.parametrize("name", SHARED)
def test_two_processes_take_the_steps_of_one_on_the_joined_batch(name, two_processes, tmp_path):
    make, _, steps, moved = SHARED[name]
    alone = fit_steps(make(), tmp_path, steps, batch_size=20).state_dict()
    for rank in (0, 1):
        together = torch.load(two_processes / f"{name} {rank}.pt")
        for key, value in alone.items():
            assert torch.allclose(value, together[key], atol=1e-6), key
    assert not torch.equal(make().state_dict()[moved], alone[moved])


@pytest.mark.cpu
def test_training_closes_stages_and_the_state_that_is_loaded_grows_the_prior(tmp_path):
    torch.manual_seed(0)
    rule = ratio()
    trainer(tmp_path, max_epochs=6, callbacks=[ModelCheckpoint(tmp_path, save_last=True)]).fit(
        rule, loader(), loader()
    )
    prior = rule.model.prior
    assert len(prior.stages) == 3
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    fresh = ratio()
    fresh.load_state_dict(checkpoint["state_dict"])
    z = torch.randn(5, DIM)
    assert torch.equal(fresh.model.prior(z), prior(z))
    assert torch.equal(fresh.model.prior.log_z, prior.log_z)
    assert torch.equal(fresh.stages.pool.particles, rule.stages.pool.particles)


class StopsEarly(Callback):
    """Ends training after three epochs."""

    def on_validation_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch == 2


@pytest.mark.cpu
def test_the_open_stage_is_closed_when_training_is_stopped_early(tmp_path):
    torch.manual_seed(0)
    rule = ratio()
    rule.stages.patience = 100
    trainer(tmp_path, max_epochs=50, callbacks=[StopsEarly()]).fit(rule, loader(), loader())
    assert len(rule.model.prior.stages) == 1


def test_weights_are_averaged_by_callback_but_not_while_stages_grow(tmp_path):
    ema = EMAWeightAveraging(use_buffers=False, decay=0.9)
    rule = mle()
    trainer(tmp_path, max_epochs=1, callbacks=[ema], enable_checkpointing=False).fit(
        rule, loader(), loader()
    )
    with pytest.raises(ValueError, match="callbacks must not average weights"):
        trainer(tmp_path, max_epochs=1, callbacks=[EMAWeightAveraging()]).fit(
            ratio(), loader(), loader()
        )


def test_refusals():
    with pytest.raises(ValueError, match=r"model\.prior must be a RatioPrior"):
        MultiStageRatio(energy_model(), MCMCPosterior(Langevin(0.01, 3)), stages(), ADAM)
    with pytest.raises(FloatingPointError, match="x must be finite: 1 of 10"):
        mle().losses(torch.cat([data(9), torch.full((1, EVENT), math.nan)]))
    with pytest.raises(ValueError, match="x must have the shape"):
        mle().losses(torch.zeros(10, EVENT + 1))
    with pytest.raises(ValueError, match="index must name the data"):
        mle_persistent().losses(data(10))
    diverging = ShortRunMLE(energy_model(), MCMCPosterior(Langevin(100.0, 60)), ADAM)
    with pytest.raises(FloatingPointError, match="use a smaller step_size"):
        diverging.losses(data(10))
