"""What a few minutes of a GPU teach: ``LATENT_EBM_DATA=DIR python -m experiments.gpu.train``

CIFAR-10 (jpeg), 32x32: a class-conditional diffusion model; its one-step students by EM
Distillation, distribution matching and UFOGen, each for the same time; latent energy priors by
maximum likelihood and by multi-stage ratios at the published sizes. All are judged in the features
of a classifier that is trained first. Every part has a budget in seconds and goes on from its
checkpoint under ``--out`` when the same command is given a larger one. ``--tiny`` runs the script
anywhere.
"""

import argparse
import json
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.benchmarks.training import likelihood, mle
from experiments.common import OUTPUTS, write_json
from experiments.gpu.speed import begun
from latent_ebm import GaussianPrior, LatentModel, MCMCPosterior, RatioPrior
from latent_ebm.conditions import ClassLabels, label_condition
from latent_ebm.data import Images
from latent_ebm.data.base import TensorSet, collate
from latent_ebm.denoisers import Preconditioned
from latent_ebm.distillation import DistributionMatching, EMDistillation, OneStep, UFOGen
from latent_ebm.learning import Denoising, MultiStageRatio, RatioStages
from latent_ebm.learning.base import LearningRule
from latent_ebm.metrics import frechet_distance, prdc
from latent_ebm.networks import EnergyMLP, UNet
from latent_ebm.networks.classifier import FeatureClassifier, frozen_classifier
from latent_ebm.plots import save_grid
from samplers import DDIM, MALA, Captured, Langevin, LowPrecision, VPCosine

SHAPE, CLASSES, STEPS = (3, 32, 32), 10, (1, 4, 18, 50)
SCHEDULE = VPCosine(log_snr_min=-7.0, log_snr_max=12.0)
STUDENT_LOG_SNR, EM_STEPS = -5.0, (1, 4, 16)
Sets = dict[str, TensorSet]


def adam(lr: float, **options: Any) -> Callable[..., torch.optim.Optimizer]:
    return partial(torch.optim.Adam, lr=lr, **options)


def load(tiny: bool) -> Sets:
    """Training images with their mirror images, images to validate and to test; noise if
    ``tiny``.
    """
    if tiny:
        x = torch.rand(60, *SHAPE) * 2 - 1
        return {
            name: TensorSet(x, torch.arange(60) % CLASSES) for name in ("train", "val", "test")
        }
    data = Images()
    data.setup()
    train = TensorSet(torch.cat([data.train.x, data.train.x.flip(-1)]), data.train.label.repeat(2))
    return {"train": train, "val": data.val, "test": data.test}


def teacher(channels: int) -> Denoising:
    """A U-Net told the class, which is left out for a tenth of the rows."""
    denoiser = Preconditioned(UNet(SHAPE, channels, CLASSES), SCHEDULE, "edm", data_scale=0.5)
    reverse = DDIM(SCHEDULE, 50)
    return Denoising(
        denoiser, reverse, SHAPE, adam(4e-4), log_snr=(2.0, 3.0), conditioner=ClassLabels(CLASSES)
    )


def student(kind: str, denoiser: Preconditioned) -> LearningRule:
    """A one-step student: ``emd-K``, ``dmd`` or ``ufogen``."""
    optimizer = adam(1e-4, betas=(0.0, 0.99))
    if kind == "ufogen":
        return UFOGen(
            denoiser, None, SHAPE, optimizer, reconstruction=0.5, penalty=0.1, penalty_every=4
        )
    shared: dict[str, Any] = {
        "log_snr": (-5.0, 5.0),
        "fake_lr": 2e-4,
        "conditioner": ClassLabels(CLASSES),
    }
    parts = (
        denoiser,
        OneStep(denoiser, STUDENT_LOG_SNR),
        deepcopy(denoiser).requires_grad_(),
        SHAPE,
    )
    if kind == "dmd":
        return DistributionMatching(*parts, optimizer, **shared)
    return EMDistillation(
        *parts, optimizer, Langevin(0.16, int(kind.removeprefix("emd-"))), **shared
    )


def latent(kind: str, channels: int, steps: int, pool_size: int) -> LearningRule:
    """A latent model of 100 dimensions whose prior is learnt by ``mle`` or by ``ratio``."""
    posterior = MCMCPosterior(Captured(LowPrecision(Langevin(0.005, steps))))
    if kind == "mle":
        return mle(Captured(Langevin(0.08, 60)), posterior, SHAPE, channels)
    dim, sampler = 100, MALA(0.05, 40)
    model = LatentModel(RatioPrior(GaussianPrior(dim), [], sampler), likelihood(SHAPE, channels))
    stages = RatioStages(EnergyMLP(dim), dim, pool_size, MALA(0.05, 1), max_stages=20)
    return MultiStageRatio(model, posterior, stages, adam(1e-4))


class Run:
    """Parts under one folder and one clock: each is trained within its budget, judged, written
    down.
    """

    def __init__(self, out: Path, sets: Sets, judge: FeatureClassifier, num: int) -> None:
        self.out, self.sets, self.judge, self.num = out, sets, judge, num
        self.device = next(judge.parameters()).device
        self.found = begun(out / "train.json", self.device.type)

    def fit(
        self,
        name: str,
        rule: LearningRule,
        seconds: int,
        batch_size: int,
        decay: float = 0.0,
        **options: Any,
    ) -> None:
        """Train ``rule`` until it has had ``seconds`` in all; with ``decay`` it ends as its
        average.
        """
        last = self.out / f"{name}.ckpt"
        keep = ModelCheckpoint(
            self.out, name, save_on_train_epoch_end=True, enable_version_counter=False
        )
        averages = [EMAWeightAveraging(use_buffers=False, decay=decay)] if decay else []
        trainer = Trainer(
            accelerator="auto",
            devices=1,
            precision="bf16-mixed" if self.device.type == "cuda" else "32-true",
            max_epochs=-1,
            max_time={"seconds": seconds},
            callbacks=[keep, *averages],
            logger=False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,
            **options,
        )
        train = DataLoader(
            self.sets["train"], batch_size, True, drop_last=True, collate_fn=collate
        )
        validate = DataLoader(self.sets["val"], batch_size, collate_fn=collate)
        resume = last if last.exists() else None
        trainer.fit(rule, train, validate, ckpt_path=resume, weights_only=True)
        rule.to(self.device).eval()
        self.found[name] = {"seconds": seconds, "steps": trainer.global_step}

    def tell(self, name: str, make: Callable[[], Tensor]) -> None:
        """Judge what ``make`` generates, draw some of it, and write all down."""
        start = time.perf_counter()
        with torch.no_grad(), torch.random.fork_rng(enabled=True):
            torch.manual_seed(0)
            x = make().float().clamp(-1, 1)
        features = self.features(x)
        real = self.features(self.sets["test"].x[: self.num])
        entry = {
            "frechet": frechet_distance(real, features),
            **prdc(real, features),
            "seconds to make them": time.perf_counter() - start,
        }
        self.found[name] = {**self.found.get(name, {}), **entry}
        print(f"{name}: {json.dumps(self.found[name])}", flush=True)
        save_grid(x[:60].cpu(), self.out / f"{name}.png", 10)
        write_json(self.out / "train.json", {"config": self.found["card"], "result": self.found})

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self.judge.features(rows.to(self.device)) for rows in x.split(500)]
        ).cpu()

    def labels(self) -> Tensor:
        """Classes in turn, of as many samples as are judged."""
        return torch.arange(self.num, device=self.device) % CLASSES


def classifier(out: Path, train: TensorSet, epochs: int) -> FeatureClassifier:
    """The judge of all samples, trained once, on the device that all else is then on."""
    path, device = out / "classifier.pt", "cuda" if torch.cuda.is_available() else "cpu"
    if path.exists():
        network = FeatureClassifier(SHAPE, CLASSES, 32)
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.to(device).eval().requires_grad_(False)
    x, label = train.x.to(device), train.label.to(device)
    network = frozen_classifier(x, label, CLASSES, 32, epochs=epochs, progress=False)
    torch.save(network.state_dict(), path)
    return network


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUTPUTS / "gpu", help="folder of all results")
    parser.add_argument("--teacher", type=int, default=150, help="seconds of the diffusion model")
    parser.add_argument("--student", type=int, default=40, help="seconds of every student")
    parser.add_argument("--latent", type=int, default=40, help="seconds of every latent model")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the script")
    args = parser.parse_args()
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)
    channels, batch_size, width, num = (8, 20, 2, 30) if args.tiny else (96, 512, 64, 2500)
    sets = load(args.tiny)
    run = Run(args.out, sets, classifier(args.out, sets["train"], 1 if args.tiny else 6), num)
    run.tell("training images", lambda: sets["train"].x[:num])
    rule = teacher(channels)
    if args.teacher:
        run.fit("teacher", rule, args.teacher, batch_size, decay=0.999, limit_val_batches=0)
        classes = label_condition(torch.arange(num) % CLASSES)
        for steps in STEPS[:2] if args.tiny else STEPS:
            run.tell(
                f"teacher, {steps} steps",
                lambda k=steps: rule.generate(num, classes, num_steps=k)["x"],
            )
    denoiser = deepcopy(rule.denoiser)
    for kind in ("dmd", *(f"emd-{k}" for k in EM_STEPS), "ufogen") if args.student else ():
        learner = student(kind, deepcopy(denoiser))
        run.fit(kind, learner, args.student, batch_size // 2, decay=0.99, limit_val_batches=0)
        told = None if kind == "ufogen" else label_condition(run.labels())
        run.tell(kind, lambda rule=learner, told=told: rule.generate(num, told)["x"])
    for kind in ("mle", "ratio") if args.latent else ():
        learner = latent(kind, width, 2 if args.tiny else 40, 50 if args.tiny else 20_000)
        every = {"val_check_interval": 2 if args.tiny else 100}  # held-out rows close stages
        run.fit(f"latent {kind}", learner, args.latent, min(batch_size, 100), **every)
        run.tell(f"latent {kind}", lambda rule=learner: rule.generate(num)["x"])
    print(
        f"to go on, give the same command more seconds: it starts from {args.out}/*.ckpt",
        flush=True,
    )


if __name__ == "__main__":
    main()
