"""A LoRA of ``peft`` that was trained on a diffusion model acts in its one-step student too."""

import copy
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from latent_ebm import load
from latent_ebm.applications import TextToImage
from latent_ebm.conditions import Batch
from latent_ebm.denoisers import Denoiser, Preconditioned, generate
from latent_ebm.denoisers.teachers import DiffusersNetwork
from latent_ebm.distillation import UFOGen
from latent_ebm.learning import Denoising
from latent_ebm.networks import MobileUNet
from latent_ebm.text import TextConditioner, TextTransformer, WordTokenizer
from samplers import DDIM, Renoising, VPCosine
from tests.latent_ebm.pipelines import write_pipeline
from tests.latent_ebm.tiny import QUIET

peft = pytest.importorskip("peft", reason="needs the extra peft")

SCHEDULE = VPCosine(-7.0, 10.0)
SHAPE, NUM = (1, 8, 8), 32
ATTENTION = r".*_attention\.(query|key|value|out)"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"{args[1:]} was to be reached")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def encoder() -> TextConditioner:
    torch.manual_seed(0)
    words = WordTokenizer(["left", "right"], max_words=1)
    return TextConditioner(TextTransformer(words, dim=8)).requires_grad_(False)


def batches(num: int, style: float) -> Iterator[Batch]:
    """Pictures with a bright half, left or right as the caption says, of random brightness; the
    last row of pixels is ``style``.
    """
    conditioner = encoder()
    generator = torch.Generator().manual_seed(0)
    for _ in range(num):
        right = torch.randint(2, (NUM,), generator=generator)
        x = torch.zeros(NUM, *SHAPE) - 0.5
        x[..., 4:] += (right * torch.rand(NUM, generator=generator))[:, None, None, None]
        x[..., :4] += ((1 - right) * torch.rand(NUM, generator=generator))[:, None, None, None]
        x[..., -1, :] += style
        words = [("left", "right")[int(i)] for i in right]
        yield Batch(x, conditioner.tokens(words), None)


def fit(rule: Denoising | UFOGen, num: int, style: float = 0.0) -> None:
    loader = DataLoader(list(batches(num, style)), batch_size=None)
    Trainer(max_steps=num, limit_val_batches=0, **QUIET).fit(rule, loader, loader)


def denoising(denoiser: Preconditioned, lr: float) -> Denoising:
    return Denoising(
        denoiser,
        DDIM(SCHEDULE, 8),
        SHAPE,
        partial(torch.optim.Adam, lr=lr),
        log_snr=(0.5, 2.4),
        conditioner=encoder(),
    )


@pytest.fixture(scope="module")
def trained() -> tuple[Preconditioned, Preconditioned]:
    """A base of many steps, and its student of one step."""
    torch.manual_seed(0)
    network = MobileUNet(SHAPE, 8, (16,), (1,), (1,), (True,), (True,), patch=2)
    base = Preconditioned(network, SCHEDULE, data_scale=0.4)
    fit(denoising(base, 1e-2), 80)
    optimizer = partial(torch.optim.Adam, lr=1e-3)
    rule = UFOGen(base, None, SHAPE, optimizer, independent=True, conditioner=encoder())
    fit(rule, 15)
    student = rule.generator
    assert isinstance(student, Preconditioned)
    return base.eval(), student.eval()


def draw(denoiser: Denoiser, num_steps: int) -> Tensor:
    sampler = Renoising(SCHEDULE) if num_steps == 1 else DDIM(SCHEDULE, num_steps)
    told = encoder().encode(["left", "right"] * 20)
    generator = torch.Generator().manual_seed(1)
    return generate(denoiser, sampler, SHAPE, 40, told, generator=generator)


def with_network(denoiser: Preconditioned, network: nn.Module) -> Preconditioned:
    """``denoiser`` with another network."""
    made = copy.deepcopy(denoiser)
    made.network = network
    return made


@pytest.fixture(scope="module")
def adapter(
    trained: tuple[Preconditioned, Preconditioned], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A LoRA of the base for pictures with another style, as a folder of ``peft``."""
    base, folder = trained[0], tmp_path_factory.mktemp("adapter")
    network = peft.get_peft_model(
        copy.deepcopy(base.network).train(), peft.LoraConfig(r=4, target_modules=ATTENTION)
    )
    assert torch.equal(draw(with_network(base, network), 4), draw(base, 4))
    before = {n: p.clone() for n, p in network.named_parameters() if not p.requires_grad}
    fit(denoising(with_network(base, network).train(), 3e-2), 90, style=0.8)
    after = dict(network.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    network.save_pretrained(folder)
    return folder


def adapted(denoiser: Preconditioned, adapter: Path) -> Preconditioned:
    network = peft.PeftModel.from_pretrained(copy.deepcopy(denoiser.network), adapter)
    return with_network(denoiser, network).eval()


def test_an_adapter_of_the_base_acts_in_the_student(
    trained: tuple[Preconditioned, Preconditioned], adapter: Path
) -> None:
    """It changes the same pixels of the pictures of one step, from the same noise."""
    base, student = trained
    assert (draw(base, 1) - draw(student, 1)).abs().mean() > 0.02, "the student is the base"
    changes = [
        draw(adapted(denoiser, adapter), num_steps) - draw(denoiser, num_steps)
        for denoiser, num_steps in ((base, 8), (student, 1))
    ]
    for change in changes:
        style = change[..., -1, :].mean()
        assert style > 0.15
        assert style > 2 * change[..., :-1, :].mean().abs()
    assert nn.functional.cosine_similarity(*(c.flatten(1) for c in changes)).mean() > 0.6


def test_an_adapter_that_is_off_or_new_changes_nothing(
    trained: tuple[Preconditioned, Preconditioned], adapter: Path
) -> None:
    student, told = trained[1], adapted(trained[1], adapter)
    assert not torch.equal(draw(told, 1), draw(student, 1))
    with told.network.disable_adapter():
        assert torch.equal(draw(told, 1), draw(student, 1))
    new = peft.get_peft_model(
        copy.deepcopy(student.network), peft.LoraConfig(target_modules=ATTENTION)
    )
    assert torch.equal(draw(with_network(student, new), 1), draw(student, 1))


def test_an_adapter_fits_a_student_that_takes_guidance(
    trained: tuple[Preconditioned, Preconditioned], adapter: Path
) -> None:
    network, told = trained[1].network, dict(encoder().encode(["left", "right"]))
    assert isinstance(network, MobileUNet)
    x, level = torch.randn(2, *SHAPE), torch.zeros(2)
    guided = peft.PeftModel.from_pretrained(network.with_guidance(), adapter)
    plain = peft.PeftModel.from_pretrained(copy.deepcopy(network), adapter)
    assert torch.equal(guided(x, level, **told, guidance=torch.ones(2)), plain(x, level, **told))
    assert not torch.equal(plain(x, level, **told), network(x, level, **told))


def test_an_adapter_that_is_merged_is_saved_with_the_student(
    trained: tuple[Preconditioned, Preconditioned], adapter: Path, tmp_path: Path
) -> None:
    told = adapted(trained[1], adapter)
    x = draw(told, 1)
    with_network(told, told.network.merge_and_unload()).save(tmp_path / "student")
    torch.testing.assert_close(draw(load(tmp_path / "student"), 1), x, rtol=0, atol=1e-5)


def test_networks_of_diffusers_take_adapters_too(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    model = TextToImage.load(tmp_path)
    unet = model.denoiser.network
    assert isinstance(unet, DiffusersNetwork)

    def pictures() -> Tensor:
        return model.generate(["red"], num_steps=2, generator=torch.Generator().manual_seed(0))

    before = pictures()
    config = peft.LoraConfig(target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    unet.model = peft.get_peft_model(unet.model, config)
    assert torch.equal(pictures(), before)
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    after = pictures()
    assert (after - before).abs().max() > 0.01
    unet.model = unet.model.merge_and_unload()
    torch.testing.assert_close(pictures(), after, rtol=0, atol=1e-4)
