"""What is saved comes back: every class of the library, bit for bit, in another process too."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

import latent_ebm
from latent_ebm import (
    AmortizedPosterior,
    BernoulliLikelihood,
    EnergyPrior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    Likelihood,
    Masked,
    MCMCPosterior,
    Posterior,
    PosteriorLatents,
    Prior,
    RatioPrior,
    Restarts,
    WarmStart,
    load,
    save,
)
from latent_ebm.applications import Inpainter, TextToImage
from latent_ebm.artefacts import Artefact
from latent_ebm.artefacts.building import build
from latent_ebm.artefacts.classes import OURS, Allowed
from latent_ebm.artefacts.describing import describe
from latent_ebm.autoencoders import ConvAutoencoder, PatchCritic, PatchPCA, PretrainedAutoencoder
from latent_ebm.conditions import ClassLabels, Unconditional, label_condition
from latent_ebm.data import Toy2D
from latent_ebm.denoisers import (
    Denoiser,
    FromNoise,
    GaussianMixtureDenoiser,
    Preconditioned,
)
from latent_ebm.distillation import LinearDenoiser, OneStep
from latent_ebm.distillation.ufogen import DenoiserCritic
from latent_ebm.guidance import ClassifierFree, NullText, StepWise
from latent_ebm.kernels import KernelPrior, NeighbourPrior
from latent_ebm.learning import ShortRunMLE
from latent_ebm.likelihoods import GivenLikelihood
from latent_ebm.networks import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    Critic,
    DenoiserMLP,
    EnergyMLP,
    Fourier,
    MobileUNet,
    PlacedEncoder,
    ResidualEncoder,
    SubjectUNet,
    UNet,
    WithLatent,
    WithTime,
)
from latent_ebm.networks.classifier import FeatureClassifier
from latent_ebm.networks.conditional import ClassEnergy, Conditional, WithClass
from latent_ebm.networks.conditioning import Conditioning
from latent_ebm.scorers import ContrastiveScorer
from latent_ebm.scorers.pretrained import PretrainedScorer
from latent_ebm.selection import Discriminative, Pooled
from latent_ebm.subjects import LearnedIdentity, PlainBackground
from latent_ebm.subjects.pretrained import PretrainedIdentity, PretrainedSegmenter
from latent_ebm.text import (
    SubjectConditioner,
    SubwordTokenizer,
    TextConditioner,
    TextTransformer,
    WordTokenizer,
)
from latent_ebm.text.pretrained import PretrainedTextEncoder
from samplers import DDIM, MALA, Langevin, PersistentChains, Sampler, VPCosine, VPLinear
from samplers.reverse import ReverseSampler
from samplers.schedules import Schedule

ROOT = Path(__file__).parents[2]
CHAIN = Langevin(0.1, 3)
STEPS = torch.tensor([0.9, 0.3])
STEP_LABELS = torch.tensor([[0], [2]])
NOISE = VPCosine(log_snr_min=-7.0, log_snr_max=12.0)
Outputs = Callable[[Any], "Tensor | tuple[Tensor, ...]"]


class Row(NamedTuple):
    """How to make an object of a class, and what it gives."""

    make: Callable[[], nn.Module]
    use: Outputs


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def of(*shape: int) -> Outputs:
    """The output at one input of this shape."""
    return lambda module: module(draws(*shape))


def gaussian() -> GaussianLikelihood:
    return GaussianLikelihood(MLP(2, 3, [4]), 0.3, learn_scale=True)


def model() -> LatentModel:
    return LatentModel(GaussianPrior(2), gaussian())


def denoiser() -> Preconditioned:
    return Preconditioned(DenoiserMLP(2, [4], num_classes=3), NOISE, "edm", data_scale=0.5)


def full_mixture() -> GaussianMixtureDenoiser:
    root = draws(2, 3, 3)
    return GaussianMixtureDenoiser(
        [0.3, 0.7], draws(2, 3), root @ root.mT + torch.eye(3), VPLinear(), labels=[5, 7]
    )


def grown() -> RatioPrior:
    """A prior that has more stages than it was made with."""
    prior = RatioPrior(GaussianPrior(2), [EnergyMLP(2, [3])], CHAIN)
    prior.append(EnergyMLP(2, [4], "silu"), weight=0.5, log_z_step=0.2)
    return prior


def text_encoder() -> TextTransformer:
    tokenizer = WordTokenizer(["a", "cat"], max_words=4)
    return TextTransformer(tokenizer, 8, 2, num_heads=2, expansion=2, table=draws(5, 3))


def kernels() -> KernelPrior:
    return KernelPrior(draws(6, 2).double(), draws(6).exp().double())


def use_prior(prior: Prior) -> tuple[Tensor, ...]:
    like = next(iter([*prior.parameters(), *prior.buffers()]))
    return prior.log_density(draws(5, 2).to(like)), prior.sample(4, generator=stream())


def use_likelihood(likelihood: Likelihood) -> tuple[Tensor, ...]:
    p = likelihood(draws(5, 2))
    return p.mean, p.log_prob(torch.full((5, 3), 0.5))


def use_posterior(posterior: Posterior) -> Tensor:
    torch.manual_seed(0)
    index = torch.arange(5)
    return posterior.sample(model(), draws(5, 3), index=index, generator=stream())


def use_denoiser(denoiser: Denoiser) -> tuple[Tensor, ...]:
    x = (
        draws(5, denoiser.means.shape[1])
        if isinstance(denoiser, GaussianMixtureDenoiser)
        else draws(5, 2)
    )
    t = torch.tensor(0.4)
    return denoiser(x, t), denoiser.score(x, t)


ROWS: dict[type, Row] = {
    GaussianPrior: Row(lambda: GaussianPrior(2), use_prior),
    EnergyPrior: Row(lambda: EnergyPrior(EnergyMLP(2, [4]), GaussianPrior(2), CHAIN), use_prior),
    RatioPrior: Row(grown, use_prior),
    KernelPrior: Row(kernels, use_prior),
    NeighbourPrior: Row(
        lambda: NeighbourPrior(kernels(), draws(6).double(), 3, MALA(0.1, 3)), use_prior
    ),
    GaussianLikelihood: Row(gaussian, use_likelihood),
    BernoulliLikelihood: Row(lambda: BernoulliLikelihood(MLP(2, 3, [4])), use_likelihood),
    Masked: Row(lambda: Masked(gaussian(), torch.tensor([True, False, True])), use_likelihood),
    MCMCPosterior: Row(lambda: MCMCPosterior(CHAIN, PersistentChains(9, 2)), use_posterior),
    AmortizedPosterior: Row(lambda: AmortizedPosterior(MLP(3, 4, [4])), use_posterior),
    PosteriorLatents: Row(
        lambda: PosteriorLatents(model(), AmortizedPosterior(nn.Linear(3, 4))),
        lambda latents: latents.decode(
            latents.encode(draws(5, 3), generator=torch.Generator().manual_seed(0))
        ),
    ),
    Restarts: Row(
        lambda: Restarts(MALA(0.1, 2), 3, 2, AmortizedPosterior(nn.Linear(3, 4))), use_posterior
    ),
    WarmStart: Row(lambda: WarmStart(AmortizedPosterior(nn.Linear(3, 4)), CHAIN), use_posterior),
    LatentModel: Row(model, lambda model: model.sample(4, generator=stream())),
    GaussianMixtureDenoiser: Row(full_mixture, use_denoiser),
    Preconditioned: Row(denoiser, use_denoiser),
    StepWise: Row(lambda: StepWise(denoiser(), STEPS, {"label": STEP_LABELS}), use_denoiser),
    NullText: Row(
        lambda: NullText(denoiser(), 2.0, STEPS, {"label": STEP_LABELS}),
        lambda guided: guided(draws(5, 2), torch.tensor(0.4), label=torch.tensor([0, 1, 2, 0, 1])),
    ),
    ClassifierFree: Row(
        lambda: ClassifierFree(denoiser(), 2.0, label_condition(torch.tensor([-1]))),
        lambda guided: guided(draws(5, 2), torch.tensor(0.4), label=torch.tensor([0, 1, 2, 0, 1])),
    ),
    LinearDenoiser: Row(lambda: LinearDenoiser(nn.Linear(2, 2), NOISE), use_denoiser),
    FromNoise: Row(lambda: FromNoise(denoiser(), -2.0), use_denoiser),
    OneStep: Row(lambda: OneStep(denoiser(), -5.0), of(5, 2)),
    DenoiserCritic: Row(
        lambda: DenoiserCritic(denoiser(), (2,)), lambda critic: critic(draws(5, 2), draws(5) ** 2)
    ),
    MLP: Row(lambda: MLP(2, (3, 2), [4], "tanh"), of(5, 2)),
    EnergyMLP: Row(lambda: EnergyMLP(2, [4], "leaky_relu"), of(5, 2)),
    ConvDecoder: Row(lambda: ConvDecoder(2, (3, 8, 8), 2, output="linear"), of(5, 2)),
    ConvEncoder: Row(lambda: ConvEncoder((1, 16, 16), 3, 2, "silu"), of(5, 1, 16, 16)),
    DenoiserMLP: Row(
        lambda: DenoiserMLP((2, 3), [4], 3, "gelu"), lambda net: net(draws(5, 2, 3), draws(5))
    ),
    UNet: Row(
        lambda: UNet((1, 8, 8), 8, 3, patch=1, depth=1),
        lambda net: net(draws(5, 1, 8, 8), draws(5), torch.tensor([0, 1, 2, -1, 0])),
    ),
    MobileUNet: Row(
        lambda: MobileUNet((3, 8, 8), 6, (8, 16), (1, 2), (1, 1), (True, False), (False, True)),
        lambda net: net(draws(5, 3, 8, 8), draws(5), draws(5, 4, 6), torch.ones(5, 4).bool()),
    ),
    SubjectUNet: Row(
        lambda: SubjectUNet(
            MobileUNet((7, 8, 8), 6, (8, 16), (1, 1), (1, 1), (True, False), (False, True)),
            Discriminative(3),
            clean_level=-1.0,
        ),
        lambda net: net(
            *(draws(5, 3, 8, 8), draws(5), draws(5, 4, 6), torch.ones(5, 4).bool()),
            *(draws(5, 4, 8, 8), net.tokens(draws(5, 3, 8, 8))),
        ),
    ),
    Conditioning: Row(lambda: Conditioning(8, 3), of(5)),
    FeatureClassifier: Row(lambda: FeatureClassifier((1, 8, 8), 3, 2), of(5, 1, 8, 8)),
    ResidualEncoder: Row(lambda: ResidualEncoder(1, 2), of(5, 1, 8, 8)),
    PlacedEncoder: Row(lambda: PlacedEncoder(1, 3, 2), of(5, 1, 8, 8)),
    PlainBackground: Row(lambda: PlainBackground(0.3), of(5, 1, 8, 8)),
    LearnedIdentity: Row(lambda: LearnedIdentity(ResidualEncoder(1, 2)), of(5, 1, 8, 8)),
    WithTime: Row(lambda: WithTime(MLP(3, 2, [4])), lambda net: net(draws(5, 2), draws(5))),
    WithLatent: Row(
        lambda: WithLatent(DenoiserMLP(4, [4])),
        lambda net: net(draws(5, 2), draws(5), draws(5, 2)),
    ),
    Critic: Row(
        lambda: Critic(MLP(3, 1, [4]), paired=False), lambda net: net(draws(5, 2), draws(5))
    ),
    PatchPCA: Row(lambda: PatchPCA(2, 2, 1).fit(draws(9, 1, 4, 4)), of(5, 1, 8, 8)),
    ConvAutoencoder: Row(
        lambda: ConvAutoencoder(2, 2, 1, 8, 1, 16, 1, random=True), of(5, 1, 8, 8)
    ),
    ContrastiveScorer: Row(
        lambda: ContrastiveScorer(ResidualEncoder(3, 2), text_encoder(), 8, 4),
        lambda score: score(["a cat", ""], draws(2, 3, 8, 8)),
    ),
    TextTransformer: Row(text_encoder, lambda encode: encode(encode.tokenizer(["a cat", ""]))),
    TextToImage: Row(
        lambda: TextToImage(
            TextConditioner(text_encoder()),
            Preconditioned(MobileUNet((3, 8, 8), 8, (8,), (1,), (1,), (True,), (True,)), NOISE),
            DDIM(NOISE, 2),
            (3, 8, 8),
            guidance=2.0,
        ),
        lambda m: m.generate(["a cat", ""], generator=torch.Generator().manual_seed(0)),
    ),
    Inpainter: Row(
        lambda: Inpainter(
            TextConditioner(text_encoder()),
            Preconditioned(
                SubjectUNet(
                    MobileUNet((7, 8, 8), 8, (8,), (1,), (1,), (True,), (True,)), Pooled(), 0
                ),
                NOISE,
            ),
            DDIM(NOISE, 2),
            (3, 8, 8),
            guidance=2.0,
        ),
        lambda m: m.generate(
            *(draws(2, 3, 8, 8).tanh(), torch.eye(8).expand(2, 1, 8, 8)),
            draws(2, 3, 8, 8).tanh(),
            *(["a cat", ""], 1),
            generator=stream(),
        ),
    ),
    TextConditioner: Row(
        lambda: TextConditioner(text_encoder()),
        lambda tell: tuple(tell.encode(["a cat"]).values()),
    ),
    SubjectConditioner: Row(
        lambda: SubjectConditioner(TextConditioner(text_encoder()), 2),
        lambda tell: tuple(tell(tell.conditioner.tokens(["a cat"])).values()),
    ),
    PatchCritic: Row(lambda: PatchCritic(1, 2, 1), of(5, 1, 8, 8)),
    ClassLabels: Row(
        lambda: ClassLabels(3), lambda tell: tell(label_condition(torch.tensor([0, 2])))["label"]
    ),
    Unconditional: Row(Unconditional, lambda tell: torch.tensor(len(tell.unknown(3)))),
    ClassEnergy: Row(
        lambda: ClassEnergy(2, 3, [4], "tanh"),
        lambda energy: energy(draws(5, 2), torch.tensor([0, 1, 2, -1, 0])),
    ),
    WithClass: Row(
        lambda: WithClass(MLP(4, 3, [4]), 3, 2),
        lambda net: net(draws(5, 2), torch.tensor([0, 1, 2, -1, 0])),
    ),
    GivenLikelihood: Row(
        lambda: GivenLikelihood(
            GaussianLikelihood(WithClass(MLP(4, 3, [4]), 3, 2), 0.3),
            label_condition(torch.tensor([0, 1, 2, -1, 0])),
        ),
        use_likelihood,
    ),
    Fourier: Row(lambda: Fourier(MLP(10, 2, [4]), num=2, lowest=1.0), of(5, 2)),
}


def subclasses(base: type) -> set[type]:
    return {c for sub in base.__subclasses__() for c in {sub, *subclasses(sub)}}


def public_classes() -> set[type]:
    """All that can be saved, and every module that a package exports and no rule alone uses."""
    names = [found.name for found in pkgutil.walk_packages(latent_ebm.__path__, "latent_ebm.")]
    needless = ("__main__", "detection.pyod")  # the second needs an extra
    packages = [importlib.import_module(name) for name in names if not name.endswith(needless)]
    exported = [getattr(p, name) for p in packages for name in getattr(p, "__all__", ())]
    classes = {c for c in exported if isinstance(c, type) and issubclass(c, nn.Module)}
    return {
        cls
        for cls in classes | subclasses(Artefact)
        if cls.__module__.startswith("latent_ebm.")
        and not cls.__module__.startswith(("latent_ebm.learning.", "latent_ebm.detection."))
        and not issubclass(cls, LightningModule)
        and not inspect.isabstract(cls)
    } - {Artefact, Conditional}  # bases


def test_every_public_class_has_a_row() -> None:
    foreign = {PretrainedAutoencoder, PretrainedTextEncoder, SubwordTokenizer}
    foreign |= {PretrainedIdentity, PretrainedScorer, PretrainedSegmenter}
    assert public_classes() - foreign - {WordTokenizer} == set(ROWS)  # saved with its encoder


def assert_same(made: nn.Module, loaded: Any, use: Outputs) -> None:
    with torch.no_grad():
        first, second = use(made), use(loaded)
    pairs = zip(
        *((out,) if isinstance(out, Tensor) else out for out in (first, second)), strict=True
    )
    for a, b in pairs:
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
        assert a.isfinite().all()


@pytest.mark.parametrize("cls", ROWS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_is_loaded_gives_the_same_bits(cls: type, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    row = ROWS[cls]
    made: Any = row.make()
    for parameter in made.parameters():  # as if it were trained, zeros at the start among them
        parameter.data += 0.3 * torch.rand_like(parameter)
    before = torch.get_rng_state()
    made.eval().save(tmp_path / "a")
    loaded = load(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)
    assert type(loaded) is cls
    assert not any(module.training for module in loaded.modules())
    loaded.save(tmp_path / "c")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(
        path.name for path in (tmp_path / "c").iterdir()
    )
    if dtype == torch.float32:
        assert_same(made, loaded, row.use)
    else:  # the precision of the weights is kept
        made.double().save(tmp_path / "b")
        state = load(tmp_path / "b").state_dict()
        assert all(torch.equal(state[name], value) for name, value in made.state_dict().items())
        assert all(state[name].dtype == value.dtype for name, value in made.state_dict().items())


def frozen_parts() -> list[Any]:
    import samplers as s

    chain = s.Langevin(0.1, 2, 0.5)
    return [
        *(chain, s.MALA(0.1, 2), s.UnderdampedLangevin(0.1, 1.0, 2), s.HMC(0.1, 2, 3)),
        *(s.GradientFlow(1.0, "euler", 3), s.LowPrecision(chain), s.Captured(chain)),
        *(s.Annealed(chain, (0.5, 1.0)), s.ParallelTempering(s.MALA(0.1, 2), (0.5, 1.0))),
        *(s.VPLinear(), s.VPCosine(), s.VPDiscrete(10), s.VE(), s.Karras(), s.Rectified()),
        *(s.Ancestral(NOISE, 2), s.DDIM(NOISE, 2), s.Heun(NOISE, 2), s.Renoising(NOISE, 2)),
        s.ProbabilityFlow(NOISE, num_steps=2, method="euler"),
    ]


@pytest.mark.parametrize("part", frozen_parts(), ids=lambda part: type(part).__name__)
def test_samplers_and_schedules_are_made_again(part: Any) -> None:
    tree = json.loads(json.dumps(describe(part, "x", {})))
    assert build(tree, type(part), "x", Allowed(OURS)) == part


def test_every_sampler_and_schedule_is_made_again() -> None:
    known = {type(part) for part in frozen_parts()}
    for base in (Sampler, ReverseSampler, Schedule):
        ours = {cls for cls in subclasses(base) if cls.__module__.startswith("samplers.")}
        assert {cls for cls in ours if not inspect.isabstract(cls)} <= known


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(4, 3, bias=False), (2, 4)),
    (nn.Conv1d(4, 2, 3, padding="same"), (2, 4, 8)),
    (
        nn.Conv2d(4, 2, (3, 1), stride=2, padding=1, groups=2, padding_mode="circular"),
        (2, 4, 8, 8),
    ),
    (nn.ConvTranspose2d(4, 2, 4, 2, 1, bias=False), (2, 4, 8, 8)),
    (nn.BatchNorm1d(4, affine=False), (2, 4)),
    (nn.BatchNorm2d(4, momentum=None), (2, 4, 8, 8)),
    (nn.GroupNorm(2, 4), (2, 4, 8)),
    (nn.LayerNorm([4, 8], bias=False), (2, 4, 8)),
    (nn.RMSNorm(8), (2, 4, 8)),
    (nn.InstanceNorm2d(4), (2, 4, 8, 8)),
    (nn.Dropout(0.3), (2, 4)),
    (nn.Flatten(), (2, 4, 8)),
    (nn.Unflatten(1, (2, 2)), (2, 4)),
    (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), (2, 4, 8, 8)),
    (nn.PixelShuffle(2), (2, 4, 8, 8)),
    (nn.PixelUnshuffle(2), (2, 4, 8, 8)),
    (nn.MaxPool2d(2), (2, 4, 8, 8)),
    (nn.AvgPool2d(3, 2), (2, 4, 8, 8)),
    (nn.AdaptiveAvgPool2d((2, 3)), (2, 4, 8, 8)),
    (nn.Identity(), (2, 4)),
    (nn.ReflectionPad2d(1), (2, 4, 8, 8)),
    *((layer, (2, 4)) for layer in (nn.ReLU(), nn.LeakyReLU(0.3), nn.ELU(0.5), nn.PReLU(4))),
    *((layer, (2, 4)) for layer in (nn.GELU("tanh"), nn.SiLU(), nn.Tanh(), nn.Sigmoid())),
    *((layer, (2, 4)) for layer in (nn.Softplus(2), nn.Softmax(1), nn.LogSoftmax(1), nn.GLU())),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: type(value).__name__)
def test_layers_of_torch(layer: nn.Module, shape: tuple[int, ...], tmp_path: Path) -> None:
    named = nn.Sequential()
    named.add_module("first", layer)
    save(named.eval(), tmp_path)
    loaded = load(tmp_path)
    assert repr(loaded) == repr(named)
    assert_same(named, loaded, of(*shape))


def test_a_plain_decoder_with_names_and_a_slice(tmp_path: Path) -> None:
    layers = nn.Sequential(nn.Tanh(), nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))[1:]
    likelihood = GaussianLikelihood(layers, 0.3)
    likelihood.save(tmp_path)
    assert_same(likelihood, load(tmp_path), use_likelihood)


# A quickstart: another process, another day

LATER = """
import sys, torch
from latent_ebm import load
model = load("model")
torch.save(model.sample(4, generator=torch.Generator().manual_seed(3)), "later.pt")
assert not {"lightning", "pytorch_lightning"} & set(sys.modules)
"""


def test_a_trained_model_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved as README says, loaded without Lightning, sampled with the same generator."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    prior = EnergyPrior(EnergyMLP(2, [8]), GaussianPrior(2), CHAIN)
    trained = LatentModel(prior, GaussianLikelihood(MLP(2, 2, [8]), scale=0.3))
    rule = ShortRunMLE(
        trained, MCMCPosterior(CHAIN), lambda groups: torch.optim.Adam(groups, lr=1e-2)
    )
    options: Any = {"logger": False, "enable_progress_bar": False, "inference_mode": False}
    Trainer(max_epochs=1, enable_checkpointing=False, accelerator="cpu", **options).fit(
        rule, datamodule=Toy2D(num=100, batch_size=50)
    )
    trained.save("model")
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{LATER}"],
        check=True,
    )
    now = trained.sample(4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.load("later.pt"), now)


class Tied(nn.Module):
    """Two layers, which may share their weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.first, self.second = nn.Linear(dim, dim), nn.Linear(dim, dim)


def test_frozen_and_shared_parameters_stay_so(tmp_path: Path) -> None:
    module = nn.Sequential(Tied(2), nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].second.weight = module[0].first.weight
    module[1].requires_grad_(False)
    save(module, tmp_path / "a")
    found = load(tmp_path / "a", [Tied])
    assert found[0].second.weight is found[0].first.weight
    assert found[0].second.bias is not found[0].first.bias
    before, after = (
        {name: p.requires_grad for name, p in m.named_parameters()} for m in (module, found)
    )
    assert before == after
    assert sum(before.values()) == 5


class Frozen(nn.Module):
    """A layer that its constructor freezes."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.layer = nn.Linear(dim, dim).requires_grad_(False)


@pytest.mark.parametrize("trained", [True, False])
def test_what_a_constructor_froze_may_be_trained_again(trained: bool, tmp_path: Path) -> None:
    module = Frozen(2).requires_grad_(trained)
    save(module, tmp_path / "a")
    found = load(tmp_path / "a", [Frozen])
    assert {p.requires_grad for p in found.parameters()} == {trained}


def test_closed_stages_stay_frozen(tmp_path: Path) -> None:
    prior = RatioPrior(GaussianPrior(2), [], Langevin(0.1, 2))
    prior.append(EnergyMLP(2, [3]), 0.5)
    prior.save(tmp_path / "a")
    assert not any(p.requires_grad for p in load(tmp_path / "a").parameters())
