"""Checkpoints from strangers: nothing that they name is run, and what they hold costs no more than
their size.
"""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from latent_ebm import foreign
from latent_ebm.artefacts.building import build
from latent_ebm.artefacts.classes import OURS, Allowed, find_class
from latent_ebm.autoencoders import PatchPCA
from latent_ebm.cli import main
from latent_ebm.cli.checkpoints import load_denoiser, load_rule
from latent_ebm.learning import Denoising
from latent_ebm.learning.base import LearningRule, OptimizerCallable
from tests.latent_ebm.tiny import PLAIN, energy, fit, langevin, make_config, part, write

Tree = dict[str, Any]
TOUCH = "touch canary"
JSON = '{"class_path": "os.system", "init_args": {"command": "touch canary"}}'
YAML = "class_path: builtins.exec\ninit_args:\n  source: open('canary', 'w')"
SYSTEM = part("os.system", command=TOUCH)
CHAINS = part("samplers.PersistentChains", num_chains=100, event_shape=2)
POPEN = part("subprocess.Popen", args=["touch", "canary"])


class Bomb:
    """What a pickle must never be allowed to do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("canary"),)


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def save(config: Tree | str, name: str = "a.ckpt", **change: Any) -> None:
    """A checkpoint of the tiny model, of ``config``."""
    torch.manual_seed(0)
    state = build(
        make_config("mle")["model"], LearningRule, "model", Allowed(OURS, {})
    ).state_dict()
    text = config if isinstance(config, str) else yaml.safe_dump(config)
    torch.save({"state_dict": state, "config": text, **change}, name)


def teacher(**change: Any) -> Tree:
    """The configuration of a diffusion model."""
    schedule = part("samplers.VPCosine", log_snr_min=-7.0, log_snr_max=12.0)
    network = part("latent_ebm.networks.DenoiserMLP", shape=2, hidden=[4])
    denoiser = part("latent_ebm.denoisers.Preconditioned", network=network, schedule=schedule)
    reverse = part("samplers.DDIM", schedule=schedule, num_steps=2)
    arguments = {
        "denoiser": denoiser,
        "reverse": reverse,
        "shape": [2],
        "optimizer": part("torch.optim.Adam", lr=0.1),
    }
    return {
        **make_config("mle"),
        "model": part("latent_ebm.learning.Denoising", **{**arguments, **change}),
    }


def refused(
    capsys: pytest.CaptureFixture[str],
    *words: str,
    name: str = "a.ckpt",
    trust: tuple[str, ...] = (),
) -> None:
    """``sample`` ends with status 1 and one line that holds every one of ``words``, nothing ran
    and nothing was written.
    """
    capsys.readouterr()
    before = set(Path().iterdir())
    flags = [flag for package in trust for flag in ("--trust", package)]
    assert main(["sample", name, "--num", "2", "--out", "x.npz", *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("latent-ebm: error: ")
    assert all(word in line for word in words), line
    assert len(line) < 700
    assert set(Path().iterdir()) - {Path("__pycache__")} == before, "it ran, or wrote"


def test_an_honest_checkpoint_is_sampled() -> None:
    """Also if its trainer names what it should not: a checkpoint is no training."""
    save({**make_config("mle"), "trainer": {"callbacks": [SYSTEM, JSON]}, "ckpt_path": JSON})
    assert main(["sample", "a.ckpt", "--num", "2", "--out", "x.npz"]) == 0
    assert not Path("canary").exists()


def at(*keys: str) -> Callable[[Tree, Any], None]:
    """Sets the argument of the rule that ``keys`` lead to."""

    def change(config: Tree, value: Any) -> None:
        node = config["model"]["init_args"]
        for key in keys[:-1]:
            node = node[key]["init_args"]
        node[keys[-1]] = value

    return change


OPTIMIZER, POSTERIOR, SAMPLER = at("optimizer"), at("posterior"), at("posterior", "sampler")
NETWORK, PRIOR = at("model", "prior", "network"), at("model", "prior")
INLINE = f"--model={yaml.safe_dump(part('latent_ebm.learning.ShortRunMLE', optimizer=SYSTEM))}"
ATTACKS: dict[str, tuple[Callable[[Tree, Any], None], Any, list[str]]] = {
    "json": (OPTIMIZER, JSON, ["optimizer must be Callable", "os.system"]),
    "yaml": (OPTIMIZER, YAML, ["optimizer must be Callable", "builtins.exec"]),
    "json of a module": (POSTERIOR, JSON, ["posterior must be Posterior", "os.system"]),
    "json of a scheduler": (at("scheduler"), JSON, ["scheduler must be"]),
    "json of a sampler": (SAMPLER, JSON, ["sampler must be Sampler"]),
    "json in a list": (
        PRIOR,
        part("latent_ebm.RatioPrior", base=JSON, stages=[JSON], sampler=JSON),
        ["base must be"],
    ),
    "path of a yaml file": (OPTIMIZER, "evil.yaml", ["optimizer must be Callable", "'evil.yaml'"]),
    "path for a module": (POSTERIOR, "evil.yaml", ["posterior must be Posterior", "'evil.yaml'"]),
    "function": (OPTIMIZER, SYSTEM, ["optimizer.class_path must name a", "'os.system'"]),
    "exec": (OPTIMIZER, part("builtins.exec", source="open('canary', 'w')"), ["'builtins.exec'"]),
    "class": (OPTIMIZER, POPEN, ["optimizer.class_path must name a", "'subprocess.Popen'"]),
    "dotted key": (
        at("optimizer.class_path"),
        "os.system",
        ["must be some of", "'optimizer.class_path'"],
    ),
    "dotted init_args": (at("optimizer.init_args.command"), TOUCH, ["must be some of"]),
    "dict_kwargs": (
        OPTIMIZER,
        {"class_path": "torch.optim.Adam", "dict_kwargs": {"lr": SYSTEM}},
        ["optimizer must be a class_path, a word, with init_args by name", "dict_kwargs"],
    ),
    "class_path of a list": (
        OPTIMIZER,
        {"class_path": ["os.system"]},
        ["optimizer must be a class_path, a word"],
    ),
    "init_args in a word": (
        OPTIMIZER,
        {"class_path": "torch.optim.Adam", "init_args": JSON},
        ["init_args by name"],
    ),
    "partial": (OPTIMIZER, part("functools.partial", func="os.system"), ["'functools.partial'"]),
    "argument of an optimiser": (
        OPTIMIZER,
        part("torch.optim.Adam", lr=SYSTEM),
        ["lr.class_path", "'os.system'"],
    ),
    "scheduler": (at("scheduler"), SYSTEM, ["scheduler.class_path", "'os.system'"]),
    "scheduler for an optimiser": (
        OPTIMIZER,
        part("torch.optim.lr_scheduler.LambdaLR", lr_lambda="os.system"),
        ["Optimizer"],
    ),
    "instantiate_class": (
        OPTIMIZER,
        part("lightning.pytorch.cli.instantiate_class", init=SYSTEM),
        ["instantiate_cl"],
    ),
    "load_from_checkpoint": (
        POSTERIOR,
        part("lightning.pytorch.LightningModule.load_from_checkpoint", checkpoint_path="bomb.pkl"),
        ["load_from_checkpoint"],
    ),
    "method of a rule": (
        POSTERIOR,
        part("latent_ebm.learning.ShortRunMLE.load_from_checkpoint", checkpoint_path="bomb.pkl"),
        ["load_from_checkpoint"],
    ),
    "torch.load": (
        POSTERIOR,
        part("torch.load", f="bomb.pkl", weights_only=False),
        ["'torch.load'"],
    ),
    "torch.hub": (
        POSTERIOR,
        part("torch.hub.load", repo_or_dir=".", source="local", model="f"),
        ["'torch.hub.load'"],
    ),
    "torch.jit": (POSTERIOR, part("torch.jit.load", f="bomb.pkl"), ["'torch.jit.load'"]),
    "module alias": (
        POSTERIOR,
        part("torch.nn.modules.module.torch.load", f="bomb.pkl"),
        ["torch.load'"],
    ),
    "alias of ours": (
        POSTERIOR,
        part("latent_ebm.data.mnist.gzip.open", filename="canary"),
        ["gzip.open"],
    ),
    "function of ours": (
        POSTERIOR,
        part("latent_ebm.cli.files.check_folder", folder="canary"),
        ["check_folder"],
    ),
    "our main": (
        POSTERIOR,
        part("latent_ebm.cli.main", argv=["fit", INLINE]),
        ["'latent_ebm.cli.main'"],
    ),
    "our main by itself": (
        POSTERIOR,
        part("latent_ebm.cli.__main__"),
        ["'latent_ebm.cli.__main__'"],
    ),
    "our trainer": (
        POSTERIOR,
        part("latent_ebm.cli.trainer.run_lightning", args=["fit", INLINE]),
        ["run_lightning"],
    ),
    "our loader": (
        POSTERIOR,
        part("latent_ebm.cli.checkpoints.load_rule", path="a.ckpt", trust=["os"]),
        ["load_rule"],
    ),
    "private loader": (
        POSTERIOR,
        part("latent_ebm.cli.checkpoints.load_nested", checkpoint="a.ckpt"),
        ["load_nested"],
    ),
    "module in the folder": (POSTERIOR, part("evil.Evil"), ["'evil.Evil'", "--trust evil"]),
    "activation": (
        at("model", "prior", "network", "activation"),
        "os.system",
        ["activation", "'os.system'"],
    ),
    "activation of pytorch": (
        NETWORK,
        part("torch.nn.TransformerEncoderLayer", d_model=2, nhead=1, activation=SYSTEM),
        ["activation.class_path", "'os.system'"],
    ),
    "class of another kind": (
        POSTERIOR,
        part("samplers.Langevin", step_size=1, num_steps=1),
        ["must be Posterior"],
    ),
    "not a module": (
        NETWORK,
        part("latent_ebm.detection.LatentEBMDetector"),
        ["LatentEBMDetector"],
    ),
    "callback": (
        NETWORK,
        part("lightning.pytorch.callbacks.ModelCheckpoint", dirpath="canary"),
        ["ModelCheckpoint"],
    ),
    "logger": (
        NETWORK,
        part("lightning.pytorch.loggers.CSVLogger", save_dir="canary"),
        ["CSVLogger"],
    ),
    "the rule itself": (
        lambda config, value: config.update(model=value),
        SYSTEM,
        ["model.class_path"],
    ),
    "the rule in a word": (
        lambda config, value: config.update(model=value),
        JSON,
        ["model must be LearningRule"],
    ),
    "the data": (lambda config, value: config.update(data=value), POPEN, ["data.class_path"]),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_that_a_checkpoint_names_is_run(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, value, words = ATTACKS[name]
    config = make_config("mle")
    change(config, value)
    save(config)
    Path("evil.yaml").write_text(JSON)
    Path("evil.py").write_text("open('canary', 'w')\nclass Evil: pass\n")
    Path("hubconf.py").write_text("open('canary', 'w')\ndef f(): pass\n")
    Path("bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    refused(capsys, *words)


@pytest.mark.filterwarnings("ignore")  # of the parser
def test_the_attacks_are_live() -> None:
    """A parser that reads words again runs what they say."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--optimizer", type=OptimizerCallable)
    with pytest.raises(TypeError):  # what os.system returned is no optimiser
        parser.instantiate(parser.parse_object({"optimizer": JSON})).optimizer([])
    assert Path("canary").exists()


@pytest.mark.parametrize(
    "command", [["score", "a.ckpt", "test"], ["evaluate", "a.ckpt"], ["export", "a.ckpt"]], ids=str
)
def test_every_command_refuses(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config("mle")
    config["model"]["init_args"]["optimizer"] = SYSTEM
    save(config)
    out = {"score": "s.csv", "evaluate": "figures", "export": "a.onnx"}[command[0]]
    assert main([*command, "--out", out]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "optimizer.class_path must name" in line
    assert not Path("canary").exists()


def test_tags_of_yaml_are_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    save("model: !!python/object/apply:os.system ['touch canary']\ndata: 1")
    refused(capsys, "a.ckpt must hold a config", "could not determine a constructor")


def test_trust_is_for_classes_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(
        "import os, torch\nfrom samplers import Langevin as Alias\nfrom latent_ebm import "
        "MCMCPosterior\n"
        "class Mine(MCMCPosterior):\n    pass\n"
        "class Other:\n    def __init__(self): open('canary', 'w')\n"
        "def make(): open('canary', 'w')\n"
    )
    config = make_config("mle")
    for name in ("make", "Other", "Alias", "os.system", "torch.load"):
        config["model"]["init_args"]["posterior"] = part(f"mine.{name}")
        save(config)
        refused(capsys, f"'mine.{name}'", trust=("mine", "os", "torch"))
    config["model"]["init_args"]["posterior"] = part(
        "mine.Mine", sampler=langevin(1), start=CHAINS
    )
    save(config)
    refused(capsys, "--trust mine")
    assert type(load_rule("a.ckpt", ["mine"])[0].posterior).__name__ == "Mine"
    config["model"]["init_args"]["posterior"] = POPEN
    save(config)
    refused(capsys, "'subprocess.Popen'", trust=("subprocess", "os", "builtins"))


def test_arguments_of_a_trusted_class() -> None:
    """Are what they are annotated with: paths, dictionaries, pairs, parts in them, and what goes
    on to the base.
    """
    Path("theirs.py").write_text(
        "from pathlib import Path\nfrom torch import nn\nfrom latent_ebm import MCMCPosterior\n"
        "class Theirs(MCMCPosterior):\n"
        "    def __init__(self, path: Path, sizes: dict[str, tuple[int, float]], parts: "
        "list[nn.Module], **rest):\n"
        "        super().__init__(**rest)\n"
        "        self.given = path, sizes, [type(part).__name__ for part in parts]\n"
    )
    arguments = {"path": "x.csv", "sizes": {"a": [1, 2.0]}, "parts": [part("torch.nn.ReLU")]}
    config = make_config("mle")
    config["model"]["init_args"]["posterior"] = part(
        "theirs.Theirs", **arguments, sampler=langevin(1), start=CHAINS
    )
    save(config)
    given = load_rule("a.ckpt", ["theirs"])[0].posterior.given  # pyright: ignore[reportAttributeAccessIssue]
    assert given == (Path("x.csv"), {"a": (1, 2.0)}, ["ReLU"])


@pytest.mark.parametrize(
    "path",
    [
        "torch.nn.Linear",
        "torch.nn.modules.linear.Linear",
        "torch.optim.adam.Adam",
        "latent_ebm.priors.EnergyPrior",
    ],
)
def test_classes_have_several_names(path: str) -> None:
    assert find_class(path, "x", Allowed(OURS)).__name__ == path.rpartition(".")[2]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            ".",
            "Langevin",
            "torch.nn.functional.relu",
            "torch.nn.init.ones_",
            "torch.nn.foo.Linear",
            "torch.nn.Parameter",
        ),
        *(
            "torch.nn.parallel.DistributedDataParallel",
            "torch.nn.modules.linear.Adam",
            "torch.optim.Tensor",
        ),
        *(
            "samplers.base.math",
            "samplers..Langevin",
            "samplers.Langevin.__init__",
            "samplers.base.Tensor",
        ),
        *(
            "latent_ebm.cli.checkpoints.Path",
            "latent_ebm.cli.trainer.CommandLine",
            "latent_ebm.none.A",
            "samplers.State",
        ),
    ],
)
def test_what_is_no_class_of_ours_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"^x must .*got|^x must hold the name of a class"):
        find_class(path, "x", Allowed(OURS))


def test_no_parameter_of_pytorch_is_a_road() -> None:
    """Every module that torch.nn offers is a plain one of its own."""
    modules = [
        c
        for c in vars(torch.nn).values()
        if isinstance(c, type) and issubclass(c, torch.nn.Module)
    ]
    assert len(modules) > 100
    assert {c.__module__.split(".")[2] for c in modules} == {"modules", "parallel"}
    assert [c.__name__ for c in modules if ".parallel." in c.__module__] == ["DataParallel"]


# Teachers


def test_a_teacher_is_loaded_by_the_same_rules(capsys: pytest.CaptureFixture[str]) -> None:
    """Named by an honest YAML file, or by the checkpoint of a student."""
    evil = teacher(optimizer=SYSTEM)
    save(evil, "teacher.ckpt")
    named = part("latent_ebm.cli.checkpoints.load_denoiser", checkpoint="teacher.ckpt")
    save(teacher(denoiser=named))
    refused(capsys, "optimizer.class_path", "'os.system'")
    with pytest.raises(ValueError, match=r"optimizer\.class_path must name"):
        load_denoiser("teacher.ckpt")
    arguments = {
        "teacher": named,
        "critic": None,
        "shape": [2],
        "optimizer": part("torch.optim.Adam", lr=0.1),
    }
    assert (
        fit(
            {**make_config("mle"), "model": part("latent_ebm.distillation.UFOGen", **arguments)},
            Path(),
        )
        == 1
    )
    assert "'os.system'" in capsys.readouterr().err
    assert not Path("canary").exists()


def test_a_teacher_names_no_third(capsys: pytest.CaptureFixture[str]) -> None:
    """So that no circle of checkpoints can be drawn."""
    named = part("latent_ebm.cli.checkpoints.load_denoiser", checkpoint="a.ckpt")
    save(teacher(denoiser=named))
    refused(capsys, "denoiser.class_path must name", "load_denoiser'")


def test_a_teacher_that_is_honest_is_loaded() -> None:
    def store(config: Tree, name: str) -> None:
        rule = build(config["model"], LearningRule, "model", Allowed(OURS, {}))
        torch.save({"state_dict": rule.state_dict(), "config": yaml.safe_dump(config)}, name)

    store(teacher(), "teacher.ckpt")
    weights = torch.load("teacher.ckpt")["state_dict"]
    named = part("latent_ebm.cli.checkpoints.load_denoiser", checkpoint="teacher.ckpt")
    torch.save(
        {"state_dict": weights, "config": yaml.safe_dump(teacher(denoiser=named))}, "a.ckpt"
    )
    rule, _ = load_rule("a.ckpt")
    assert isinstance(rule, Denoising)
    assert all(torch.equal(weights[name], value) for name, value in rule.state_dict().items())


def test_a_teacher_from_a_file_is_loaded_by_a_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its own weights come first, those of the file only shape it."""
    config = teacher()
    skeleton = config["model"]["init_args"]["denoiser"]
    denoiser = build(skeleton, torch.nn.Module, "x", Allowed(OURS, {}))
    save_file(denoiser.network.state_dict(), "net.safetensors")
    named = part("latent_ebm.denoisers.load_teacher", path="net.safetensors", skeleton=skeleton)
    weights = {
        name: value.clone().add_(1.0)
        for name, value in denoiser.state_dict(prefix="denoiser.").items()
    }
    save(teacher(denoiser=named), state_dict=weights)
    rule, _ = load_rule("a.ckpt")
    assert all(torch.equal(weights[name], value) for name, value in rule.state_dict().items())
    Path("net.safetensors").write_bytes(pickle.dumps(Bomb()))
    refused(capsys, "net.safetensors must hold the weights of skeleton.network")
    save(
        teacher(denoiser=part("latent_ebm.denoisers.load_teacher", path=JSON)), state_dict=weights
    )
    refused(capsys, "path must name a model directory of diffusers")


LATENTS = "latent_ebm.autoencoders.load_autoencoder"
CONDITIONER = "latent_ebm.text.load_text_encoder"
LOADERS = [
    ("latents", LATENTS, JSON, "config.json"),
    ("conditioner", LATENTS, "saved", "conditioner.class_path must be Conditioner"),
    ("conditioner", CONDITIONER, "saved", "architectures of"),
    ("latents", "latent_ebm.load", ".", "'latent_ebm.load'"),
    ("conditioner", "latent_ebm.text.WordTokenizer.load", "x.json", "WordTokenizer.load"),
]


@pytest.mark.parametrize(("place", "loader", "folder", "words"), LOADERS)
def test_loaders_make_what_an_argument_takes(
    place: str, loader: str, folder: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no other function is called in their place."""
    pytest.importorskip("transformers" if loader == CONDITIONER else "torch")
    PatchPCA().save("saved")
    save(teacher(**{place: part(loader, folder=folder)}))
    refused(capsys, words)


# Bombs


def laughs(levels: int = 9) -> str:
    lines = ["a0: &a0 [0]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels + 1)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (laughs(), ["a.ckpt must hold a config", "at most 100,000 values, aliases written out"]),
        ("[" * 900, ["a.ckpt must hold a config", "nest at most 100 deep"]),
        (
            "model: " + "9" * 10**6,
            ["a.ckpt must hold a config", "values of at most 2,048 characters"],
        ),
        ("model: [1, 2", ["a.ckpt must hold a config"]),
        ("model: 1", ["a.ckpt must hold a config", "no 'data'"]),
        ("3", ["a.ckpt must hold a config"]),
        ("model: 1\ndata: 2", ["model must be LearningRule, got 1"]),
    ],
    ids=["laughs", "deep", "digits", "cut", "incomplete", "number", "plain"],
)
def test_broken_configs(text: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    save(text)
    refused(capsys, *words)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("change", "value", "words"),
    [
        (
            NETWORK,
            part("latent_ebm.networks.EnergyMLP", dim=10**6, hidden=[10**6] * 9),
            ["a.ckpt must hold the tensors"],
        ),
        (
            NETWORK,
            part("latent_ebm.networks.EnergyMLP", dim=2, hidden=[1] * 20_000),
            ["at most 1,000 calls"],
        ),
        (
            NETWORK,
            part("latent_ebm.networks.EnergyMLP", dim=2, hidden=["9" * 2000]),
            ["hidden[0] must be int"],
        ),
        (
            NETWORK,
            part("latent_ebm.networks.EnergyMLP", dim=2, hidden=[10**1000]),
            ["must hold arguments of EnergyMLP"],
        ),
        (
            NETWORK,
            part("latent_ebm.networks.UNet", shape=[1, 8, 8], channels=24, depth=10**9),
            ["calls"],
        ),
        (
            NETWORK,
            part("torch.nn.Linear", in_features=10**7, out_features=10**7),
            ["a.ckpt must hold the tensors"],
        ),
        (
            at("prior_chains"),
            part("samplers.PersistentChains", num_chains=10**9, event_shape=1000),
            ["a.ckpt must hold the tensors of its own config"],
        ),
        (
            NETWORK,
            part(
                "torch.nn.TransformerEncoder",
                encoder_layer=part("torch.nn.ReLU"),
                num_layers=10**9,
            ),
            ["'torch.nn.TransformerEncoder'"],
        ),
        (NETWORK, part("torch.nn.LSTM", input_size=1, hidden_size=1, num_layers=10**9), ["calls"]),
    ],
    ids=["wide", "deep", "word", "digits", "unet", "linear", "chains", "copies", "lstm"],
)
def test_models_larger_than_their_file(
    change: Callable[[Tree, Any], None],
    value: Any,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(foreign, "MAX_CALLS", 1000)
    config = make_config("mle")
    change(config, value)
    save(config)
    refused(capsys, *words)


def test_a_million_stages(capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config("ratio")
    stages = config["model"]["init_args"]["stages"]
    config["model"]["init_args"]["stages"] = part(
        "latent_ebm.learning.RatioStages", **{**stages, "max_stages": 10**6}
    )
    save(config, state_dict={"model.prior.weights": torch.zeros(10**6)})
    refused(capsys, "model.prior.weights must have an entry per stage, of 0 stages, got 1000000")


# Containers


def rewrite(
    change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED
) -> None:
    """Write the members of ``a.ckpt`` anew, as ``change`` makes them."""
    with zipfile.ZipFile("a.ckpt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile("a.ckpt", "w", compression) as archive:
        for name, content in members.items():
            if (changed := change(name, content)) is not None:
                archive.writestr(name, changed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda name, content: None if name.endswith("data.pkl") else content,
            ["whole checkpoint"],
        ),
        (
            lambda name, content: b"" if name.endswith("data.pkl") else content,
            ["whole checkpoint"],
        ),
        (
            lambda name, content: content[:50] if name.endswith("data.pkl") else content,
            ["whole checkpoint"],
        ),
        (lambda name, content: None if "/data/" in name else content, ["whole checkpoint"]),
        (
            lambda name, content: (
                pickle.dumps(Bomb(), 2) if name.endswith("data.pkl") else content
            ),
            ["plain tensors"],
        ),
    ],
    ids=["no pickle", "empty pickle", "cut pickle", "no tensors", "bomb"],
)
def test_broken_members(change: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    save(make_config("mle"))
    rewrite(change)
    refused(capsys, "a.ckpt", *words)


def test_tensors_larger_than_their_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A size that is declared and not held; a member that unpacks to more; one number that stands
    for many.
    """
    save(make_config("mle"), state_dict={"a": torch.zeros(3001)})
    rewrite(
        lambda name, content: content.replace(
            (3001).to_bytes(2, "little"), (60_000).to_bytes(2, "little")
        )
    )
    refused(capsys, "a.ckpt", "whole checkpoint")
    save(make_config("mle"), state_dict={"a": torch.zeros(10**6)})
    rewrite(lambda name, content: content, zipfile.ZIP_DEFLATED)
    refused(capsys, "a.ckpt must hold at most", "bytes when unpacked")
    save(make_config("mle"), state_dict={"a": torch.zeros(1).expand(10**12)})
    refused(
        capsys, "a in the state_dict of a.ckpt must be no larger than the 4 bytes that are stored"
    )
    shared = torch.zeros(1000)
    save(make_config("mle"), state_dict={f"a{i}": shared for i in range(200)})
    refused(capsys, "the tensors of a.ckpt must have at most")


def test_a_key_that_takes_years(capsys: pytest.CaptureFixture[str]) -> None:
    """A tuple of twice a tuple of twice ..., as the key of a dictionary."""
    levels = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(100))
    save(make_config("mle"))
    rewrite(
        lambda name, content: (
            b"\x80\x02}K\x01" + levels + b"K\x01s." if name.endswith("data.pkl") else content
        )
    )
    refused(
        capsys, "a.ckpt must hold a whole checkpoint", "tuples must have at most 10 values a byte"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"state_dict": [torch.zeros(1)], "config": ""},
            ["state_dict of a.ckpt must be tensors by name, got a list"],
        ),
        (
            {"state_dict": {"a": [1]}, "config": ""},
            ["a in the state_dict of a.ckpt must be a tensor, got a list"],
        ),
        (
            {"state_dict": {"a": torch.tensor([0.0, torch.nan])}, "config": ""},
            ["a in the state_dict of a.ckpt must hold numbers, got NaN"],
        ),
        (
            {"state_dict": {"a": torch.eye(2).to_sparse()}, "config": ""},
            ["a in the state_dict", "dense"],
        ),
        (
            {"state_dict": {"a": torch.zeros(2) * 1j}, "config": ""},
            ["a in the state_dict", "dense tensor of real numbers"],
        ),
        ({"state_dict": {}, "config": ["a"]}, ["the config in a.ckpt must be text, got a list"]),
        ({"state_dict": {}}, ["a.ckpt", "no 'config'"]),
        ([1], ["a.ckpt", "no 'config' and no 'state_dict'"]),
        (torch.zeros(3), ["a.ckpt", "no 'config' and no 'state_dict'"]),
    ],
    ids=str,
)
def test_broken_contents(
    content: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, "a.ckpt")
    refused(capsys, *words)


def test_tensors_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    state = build(
        make_config("mle")["model"], LearningRule, "model", Allowed(OURS, {})
    ).state_dict()
    name = next(iter(state))
    save(make_config("mle"), state_dict={**state, name: torch.full_like(state[name], torch.inf)})
    refused(capsys, f"{name} in the state_dict of a.ckpt must be finite, got infinity")
    save(make_config("mle"), state_dict={})
    refused(capsys, "a.ckpt must hold the tensors of its own config")
    config = make_config("ratio")
    config["model"]["init_args"]["stages"] = part(
        "latent_ebm.learning.RatioStages", ratio=energy(), dim=2
    )
    save(config)
    refused(capsys, "a.ckpt must hold the tensors of its own config: no 'model.prior.weights'")


def operations(module: str, name: str, *arguments: bytes) -> bytes:
    """A pickle that calls a function."""
    return b"\x80\x02c" + f"{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR."


@pytest.mark.parametrize(
    "content",
    [
        operations("builtins", "bytearray", b"\x8a\x05" + (10**10).to_bytes(5, "little")),
        operations(
            "_codecs",
            "encode",
            pickle.dumps("\u4e00" * 10, 2)[2:-1],
            pickle.dumps("punycode", 2)[2:-1],
        ),
    ],
    ids=["ten gigabytes", "an encoding that takes years"],
)
def test_bytes_that_a_pickle_makes(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    save(make_config("mle"))
    rewrite(lambda name, old: content if name.endswith("data.pkl") else old)
    refused(capsys, "a.ckpt must hold a whole checkpoint of plain tensors: it must hold no bytes")


def ratio_config() -> Tree:
    config = make_config("ratio")
    config["model"]["init_args"]["stages"] = part(
        "latent_ebm.learning.RatioStages", **config["model"]["init_args"]["stages"]
    )
    return config


def test_the_state_of_stages_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand million checks of one number would be as many objects."""
    state = build(ratio_config()["model"], LearningRule, "model", Allowed(OURS, {})).state_dict()
    good = {"curve": [], "gain": 0.0, "filled": False}
    for name, value in {"curve": torch.zeros(1).expand(10**8), "gain": "x", "filled": [1]}.items():
        save(ratio_config(), state_dict={**state, "stages._extra_state": {**good, name: value}})
        refused(capsys, "a.ckpt must hold the tensors of its own config: RatioStages: ", "must be")


def test_the_state_of_data_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    wide = torch.zeros(1).expand(10**9)
    save(make_config("mle"), Toy2D={"range": (wide, wide), "names": None})
    refused(
        capsys, "range in the Toy2D of a.ckpt must be no larger than the 4 bytes that are stored"
    )
    config = {**make_config("mle"), "data": part("latent_ebm.data.Arrays", path="none.csv")}
    ends = torch.zeros(2), torch.ones(2)
    for shape in ((40, 1, 1), (7,)):
        state = {
            "range": ends,
            "names": None,
            "mean": torch.zeros(shape),
            "scale": torch.ones(shape),
        }
        save(config, Arrays=state)
        refused(capsys, f"x must have the shape (n, *{shape}) of the data, got (2, 2)")


@pytest.mark.parametrize(
    "network", [part("torch.nn.Bilinear", in1_features=2, in2_features=2, out_features=1)], ids=str
)
def test_parts_that_do_not_fit_each_other(
    network: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("mle")
    NETWORK(config, network)
    rule = build(config["model"], LearningRule, "model", Allowed(OURS, {}))
    save(config, state_dict=rule.state_dict())
    refused(
        capsys,
        "a.ckpt must hold a model whose parts fit each other: Bilinear.forward() missing 1 "
        "required",
    )


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_progress_of_another_kind(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a training goes on with is looked at before it starts."""
    config = make_config("mle")
    config["trainer"]["logger"] = False
    arguments = ["--config", write(config, Path()), *PLAIN, "--ckpt_path=a.ckpt"]
    whole = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "2.5",
        "loops": {},
        "callbacks": {},
    }
    whole.update(optimizer_states=[], lr_schedulers=[])
    for name, value in {
        "loops": "x",
        "callbacks": [1],
        "optimizer_states": None,
        "rng": {"cpu": "x"},
    }.items():
        save(config, **{**whole, name: value})
        assert main([command, *arguments]) == 1
        error = capsys.readouterr().err
        assert name in error
        assert "a.ckpt must hold" in error
    assert not Path("run").exists()


def test_a_flipped_bit(capsys: pytest.CaptureFixture[str]) -> None:
    save(make_config("mle"), state_dict={"a": torch.arange(100.0)})
    content = bytearray(Path("a.ckpt").read_bytes())
    content[content.find(torch.arange(100.0).numpy().tobytes()) + 200] ^= 1
    Path("a.ckpt").write_bytes(content)
    refused(
        capsys,
        "a.ckpt must hold a whole checkpoint of plain tensors: the checksum of a/data/0 is wrong",
    )


def test_what_is_no_archive(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}, "config": ""}, "a.ckpt", _use_new_zipfile_serialization=False)
    refused(capsys, "a.ckpt must hold a whole checkpoint of plain tensors: File is not a zip file")
    Path("a.ckpt").write_bytes(b"")
    refused(capsys, "a.ckpt must hold a whole checkpoint of plain tensors")
    Path("folder").mkdir()
    refused(capsys, "path must name a checkpoint, a regular file, got 'folder'", name="folder")


# Training


@pytest.mark.parametrize(
    "optimizer", [JSON, part("builtins.exec", source="1")], ids=["json", "exec"]
)
def test_an_optimiser_is_one_in_training_too(
    optimizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("mle")
    config["model"]["init_args"]["optimizer"] = optimizer
    assert fit(config, Path()) == 1
    assert (
        "model.init_args.optimizer must name a class that is an Optimizer, got"
        in capsys.readouterr().err
    )
    assert not Path("canary").exists()


def test_a_configuration_larger_than_it_looks(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text(laughs())
    assert main(["fit", "--config", "config.yaml"]) == 1
    assert "YAML must hold at most 100,000 values, aliases written out" in capsys.readouterr().err
    assert {path.name for path in Path().iterdir()} == {"config.yaml"}


@pytest.mark.parametrize("command", [["--help"], ["fit", "--help"]], ids=str)
def test_help_says_that_a_configuration_is_a_program(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    assert "is a program" in capsys.readouterr().out
