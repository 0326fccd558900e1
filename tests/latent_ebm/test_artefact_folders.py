"""A saved folder is whole or refused; nothing in it is run; what cannot be saved is named."""

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from latent_ebm import (
    EnergyPrior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    RatioPrior,
    foreign,
    load,
    save,
)
from latent_ebm.artefacts import folders
from latent_ebm.artefacts.describing import check_twin
from latent_ebm.denoisers import Preconditioned
from latent_ebm.kernels import KernelPrior
from latent_ebm.networks import MLP, EnergyMLP
from samplers import Langevin, VPCosine

Tree = dict[str, Any]
CHAIN = Langevin(0.1, 2)


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def model(shift: float = 0.0) -> LatentModel:
    torch.manual_seed(0)
    prior = EnergyPrior(EnergyMLP(2, [4]), GaussianPrior(2), CHAIN)
    made = LatentModel(prior, GaussianLikelihood(MLP(2, 3, [4]), 0.3))
    for parameter in made.parameters():
        parameter.data += shift
    return made


def part(class_path: str, **init_args: Any) -> Tree:
    return {"class_path": class_path, "init_args": init_args}


def record() -> Tree:
    return json.loads(Path("a/config.json").read_text())


def weights() -> Path:
    return Path("a", record()["weights"]["file"])


def write(record: Tree) -> None:
    """As a stranger would, with the hash that belongs to what is written."""
    record.pop("sha256", None)
    text = json.dumps({**record, "sha256": folders.fingerprint(record)})
    Path("a/config.json").write_text(text)


def remake(change: Callable[[Tree], object]) -> None:
    found = record()
    change(found)
    write(found)


def replace_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(weights())
    change(tensors)
    save_file(tensors, "new.safetensors")
    content = Path("new.safetensors").read_bytes()
    Path("new.safetensors").unlink()
    place_weights(content)


def place_weights(content: bytes) -> None:
    import hashlib

    digest = hashlib.sha256(content).hexdigest()
    named = {"file": f"weights-{digest[:16]}.safetensors", "sha256": digest}
    Path("a", named["file"]).write_bytes(content)
    remake(lambda found: found.update(weights=named))


def refused(*words: str, error: type[Exception] = ValueError, **options: Any) -> None:
    """``load`` raises one sentence with every one of ``words``; nothing ran."""
    with pytest.raises(error) as caught:
        load("a", **options)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "\n" not in text
    assert len(text) < 700
    assert not Path("canary").exists()


# Damage


def flip(path: Path, at: int = -3) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def edit(old: str, new: str) -> None:
    path = Path("a/config.json")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


DAMAGE: dict[str, tuple[Callable[[], object], list[str]]] = {
    "flipped weights": (lambda: flip(weights()), ["must be as it was saved", "damaged"]),
    "flipped header": (lambda: flip(weights(), 30), ["must be as it was saved"]),
    "cut weights": (lambda: os.truncate(weights(), 100), ["must be as it was saved"]),
    "empty weights": (lambda: weights().write_bytes(b""), ["must be as it was saved"]),
    "edited step": (lambda: edit('"step_size": 0.1', '"step_size": 0.2'), ["damaged or edited"]),
    "cut config": (lambda: os.truncate("a/config.json", 100), ["a/config.json must hold"]),
    "empty config": (lambda: os.truncate("a/config.json", 0), ["a/config.json must hold"]),
    "a list": (lambda: Path("a/config.json").write_text("[]"), ["got a list"]),
    "another config": (
        lambda: Path("a/config.json").write_text("{}"),
        ["format 1, got format No"],
    ),
    "deep config": (lambda: Path("a/config.json").write_text("[" * 10**5), ["nested too deeply"]),
    "next format": (lambda: remake(lambda r: r.update(format=2)), ["format 1, got format 2"]),
    "more keys": (lambda: remake(lambda r: r.update(more=2)), ["format 1"]),
    "another file": (
        lambda: remake(lambda r: r["weights"].update(file="../a/config.json")),
        ["must be called weights-HASH.safetensors"],
    ),
    "no file": (lambda: remake(lambda r: r.update(weights={})), ["no 'file'"]),
    "weights of words": (lambda: remake(lambda r: r.update(weights="x")), ["a/config.json must"]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_refused(name: str) -> None:
    model().save("a")
    spoil, words = DAMAGE[name]
    spoil()
    refused("a/", *words)


def test_what_is_not_there_is_named() -> None:
    refused("a/config.json", error=FileNotFoundError)
    model().save("a")
    weights().unlink()
    refused("a/weights-", error=FileNotFoundError)


TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], list[str]]] = {
    "missing": (lambda t: t.pop("prior.base.loc"), ["prior.base.loc is missing"]),
    "extra": (lambda t: t.update(more=torch.zeros(2)), ["more is none of its configuration"]),
    "other shape": (
        lambda t: t.update({"prior.base.loc": torch.zeros(3)}),
        ["prior.base.loc must be a tensor of floating numbers of shape (2,)"],
    ),
    "NaN": (lambda t: t["prior.base.loc"].fill_(torch.nan), ["prior.base.loc", "got NaN"]),
    "infinite": (
        lambda t: t["prior.network.layers.0.bias"].fill_(torch.inf),
        ["prior.network.layers.0.bias", "must be finite"],
    ),
    "integers": (
        lambda t: t.update({"prior.network.layers.0.bias": torch.zeros(4, dtype=torch.int64)}),
        ["must be a tensor of floating numbers", "got torch.int64"],
    ),
    "complex": (
        lambda t: t.update({"prior.base.loc": torch.zeros(2, dtype=torch.complex64)}),
        ["dense tensor of real numbers"],
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit_are_refused(name: str) -> None:
    model().save("a")
    change, words = TENSORS[name]
    replace_tensors(change)
    refused("a/", *words)


def test_a_pickle_is_no_weights() -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (Path("canary"),)

    model().save("a")
    place_weights(pickle.dumps(Bomb()))
    refused("a/config.json must hold an object")


# Attacks: what a stranger's folder may name


def at(*keys: str) -> Callable[[Tree, Any], None]:
    def change(found: Tree, value: Any) -> None:
        node = found["object"]["init_args"]
        for key in keys[:-1]:
            node = node[key]["init_args"]
        node[keys[-1]] = value

    return change


NETWORK, SAMPLER = at("prior", "network"), at("prior", "sampler")
SYSTEM = part("os.system", command="touch canary")
ATTACKS: dict[str, tuple[Callable[[Tree, Any], None], Any, list[str]]] = {
    "function": (NETWORK, SYSTEM, ["class_path must name", "'os.system'"]),
    "text": (NETWORK, json.dumps(SYSTEM), ["network must be Module"]),
    "exec": (SAMPLER, part("builtins.exec", source="open('canary','w')"), ["'builtins.exec'"]),
    "argument": (at("prior", "network", "dim"), SYSTEM, ["dim.class_path must name"]),
    "popen": (NETWORK, part("subprocess.Popen", args=["touch", "canary"]), ["subprocess.Popen"]),
    "torch.load": (NETWORK, part("torch.load", f="bomb.pkl"), ["'torch.load'"]),
    "hub": (NETWORK, part("torch.hub.load", repo_or_dir=".", model="f"), ["'torch.hub.load'"]),
    "module here": (NETWORK, part("evil.Evil"), ["'evil.Evil'", "classes=[Evil]"]),
    "our command": (NETWORK, part("latent_ebm.cli.main", argv=["demo"]), ["latent_ebm.cli.main"]),
    "our load": (NETWORK, part("latent_ebm.load", folder="b"), ["'latent_ebm.load'"]),
    "an optimiser": (NETWORK, part("torch.optim.Adam", lr=0.1), ["'torch.optim.Adam'"]),
    "a data module": (NETWORK, part("latent_ebm.data.Toy2D"), ["'latent_ebm.data.Toy2D'"]),
    "a denoiser loader": (
        NETWORK,
        part("latent_ebm.cli.checkpoints.load_denoiser", checkpoint="x.ckpt"),
        ["load_denoiser"],
    ),
    "another kind": (SAMPLER, part("torch.nn.ReLU"), ["sampler.class_path must be Sampler"]),
    "a layer in a sequence": (
        NETWORK,
        part("torch.nn.Sequential", **{"0": SYSTEM}),
        ["class_path must name", "'os.system'"],
    ),
    "a name in a sequence": (
        NETWORK,
        part("torch.nn.Sequential", **{"a.b": part("torch.nn.ReLU")}),
        ["must hold layers of Sequential by name"],
    ),
    "a tensor of no name": (NETWORK, {"tensor_path": "none"}, ["one of the stored tensors"]),
    "a tensor for a module": (NETWORK, {"tensor_path": "prior.base.loc"}, ["must be Module"]),
    "two keys": (NETWORK, {**part("torch.nn.ReLU"), "tensor_path": "x"}, ["must be a class_path"]),
    "wide": (
        NETWORK,
        part("torch.nn.Linear", in_features=10**7, out_features=10**7),
        ["is missing"],
    ),
    "deep": (
        NETWORK,
        part("latent_ebm.networks.EnergyMLP", dim=2, hidden=[1] * 2000),
        ["at most 1,000 calls"],
    ),
    "copies": (
        NETWORK,
        part("torch.nn.TransformerEncoder", encoder_layer=part("torch.nn.ReLU"), num_layers=10**9),
        ["'torch.nn.TransformerEncoder'"],
    ),
    "digits": (at("prior", "base", "dim"), 10**1000, ["must hold"]),
    "the object": (lambda found, value: found.update(object=value), SYSTEM, ["object.class_path"]),
    "no object": (lambda found, value: found.update(object=value), 3, ["object must be Module"]),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_that_a_folder_names_is_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MAX_CALLS", 1000)
    model().save("a")
    change, value, words = ATTACKS[name]
    remake(lambda found: change(found, value))
    Path("evil.py").write_text("open('canary', 'w')\nclass Evil: pass\n")
    Path("hubconf.py").write_text("open('canary', 'w')\ndef f(): pass\n")
    Path("bomb.pkl").write_bytes(b"cposix\nsystem\n(S'touch canary'\ntR.")
    refused("a/config.json", *words)


def test_a_rehearsal_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model larger than its tensors is refused before anything is made for real."""
    model().save("a")
    huge = part("latent_ebm.networks.EnergyMLP", dim=10**6, hidden=[10**6] * 9)
    remake(lambda found: NETWORK(found, huge))
    monkeypatch.setattr(torch.random, "fork_rng", None)  # which the real one would need
    refused("is missing")


# Classes of the user


class Mine(nn.Module):
    """Keeps its arguments, and cannot be made without values."""

    def __init__(self, dim: int, *, slope: float = 0.1) -> None:
        super().__init__()
        self.dim, self.slope = dim, slope
        self.layer = nn.Linear(dim, 3)
        assert self.layer.weight.sum().item() != 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.slope * self.layer(x)


class Forgets(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, 3)


class Takes(nn.Module):
    def __init__(self, function: object, number: float = 1.0) -> None:
        super().__init__()
        self.function, self.number = function, number


def test_a_class_of_the_user_is_handed_over() -> None:
    likelihood = GaussianLikelihood(Mine(2, slope=0.5), 0.3)
    likelihood.save("a")
    refused("decoder.class_path", "tests.latent_ebm.test_artefact_folders.Mine", "classes=[Mine]")
    loaded = load("a", classes=[Mine])
    z = torch.randn(4, 2)
    assert torch.equal(loaded(z).mean, likelihood(z).mean)
    remake(lambda found: found["object"]["init_args"].update(decoder=SYSTEM))
    refused("'os.system'", classes=[Mine])


def bend(module: str, function: Callable[[torch.Tensor], torch.Tensor]) -> type[nn.Module]:
    """A class ``module.Bend`` that bends its input."""
    methods = {"forward": lambda self, x: function(x), "__module__": module}
    return type("Bend", (nn.Module,), methods)


def test_classes_of_one_name_in_two_modules_stay_apart() -> None:
    soft, hard = bend("soft", torch.tanh), bend("hard", torch.relu)
    network = nn.Sequential(soft(), hard(), soft())
    save(network, "a")
    for classes in ([soft, hard], [hard, soft], [hard, soft, hard]):
        assert [type(layer) for layer in load("a", classes)] == [soft, hard, soft]


def test_a_class_that_has_moved_is_found_by_its_name_if_there_is_one() -> None:
    save(nn.Sequential(bend("before", torch.tanh)()), "a")
    moved, other = bend("after", torch.tanh), bend("other", torch.relu)
    assert type(load("a", [moved])[0]) is moved
    refused(r"one class for 'before.Bend', got after.Bend, other.Bend", classes=[moved, other])


class Bounded(nn.Module):
    """A layer of bounded slope, whose class PyTorch makes for every instance."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_a_parametrized_layer_is_saved(tmp_path: Path) -> None:
    made, x = Bounded().eval(), torch.randn(4, 3)
    save(made, tmp_path / "bounded")
    assert torch.equal(load(tmp_path / "bounded", classes=[Bounded])(x), made(x))


def test_classes_of_one_path_cannot_be_saved_together() -> None:
    first, second = bend("cell", torch.tanh), bend("cell", torch.relu)  # defined anew
    with pytest.raises(ValueError, match=r"cannot be saved.*one class for 'cell\.Bend'"):
        save(nn.Sequential(first(), second()), "a")
    with pytest.raises(
        ValueError, match=r"0 would be another class named cell\.Bend\(.*, not cell\.Bend"
    ):
        check_twin(nn.Sequential(first()), nn.Sequential(second()))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Forgets(2), ["Forgets must keep the argument dim of its constructor as an attribute"]),
        (nn.Sequential(nn.ReLU(), Forgets(2)), ["1 cannot be saved"]),
        (Takes(lambda x: x), ["function must be a number", "<function <", "as an nn.Module"]),
        (Takes(partial(max, 1)), ["function must be", "functools.par"]),
        (Takes(1, float("inf")), ["number must be finite to be saved, got inf"]),
        (Takes(object), ["function must be"]),
        (Takes({1: 2}), ["function must be"]),
        (nn.LSTM(2, 3), ["LSTM must keep the argument args"]),
        (
            Preconditioned(MLP(2, 2), VPCosine(), level=lambda log_snr: log_snr),
            ["level must be a number"],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_saved_says_why(made: nn.Module, words: list[str]) -> None:
    with pytest.raises(ValueError, match="saved") as caught:
        save(made, "a")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not Path("a").exists()


def changed_layer() -> nn.Module:
    network = MLP(2, 3, [4])
    network.layers[0] = nn.Linear(2, 5)
    return network


def changed_activation() -> nn.Module:
    network = EnergyMLP(2, [4])
    network.bend = nn.ReLU()
    return network


def added_layer() -> nn.Module:
    network = MLP(2, 3, [4])
    network.more = nn.Linear(2, 5)
    return network


def diverged() -> nn.Module:
    network = MLP(2, 3, [4])
    nn.init.constant_(network.layers[0].weight, torch.nan)  # pyright: ignore[reportArgumentType]
    return network


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (changed_layer, r"would make another one: layers\.0\.weight must be"),
        (changed_activation, r"bend would be GELU\(.*, not ReLU"),
        (added_layer, r"more\.bias is none of its configuration"),
        (diverged, "layers.0.weight must hold numbers, got NaN"),
    ],
)
def test_what_was_changed_behind_its_arguments_is_refused(
    make: Callable[[], nn.Module], words: str
) -> None:
    """The configuration would make something else."""
    with pytest.raises(ValueError, match=words):
        save(make(), "a")
    assert not Path("a").exists()


def test_what_was_changed_in_their_sense_is_saved() -> None:
    prior = RatioPrior(GaussianPrior(2), [], CHAIN)
    prior.append(EnergyMLP(2, [4]))
    prior.sampler = Langevin(0.5, 7)
    prior.save("a")
    assert (load("a").sampler, len(load("a").stages)) == (Langevin(0.5, 7), 1)


def test_weights_that_are_shared_are_saved_twice() -> None:
    layer = nn.Linear(3, 3)
    tied = nn.Sequential(layer, nn.Tanh(), layer)
    save(tied, "a")
    x = torch.randn(2, 3)
    assert torch.equal(load("a")(x), tied(x))


# Writing


class Killed(BaseException):
    pass


def kill(*_: object) -> None:
    raise Killed


def write_half(path: Path, content: Any, *_: object, **__: object) -> None:
    with path.open("wb") as file:
        file.write((content if isinstance(content, bytes) else content.encode())[:50])
    raise Killed


def nth(times: int, action: Callable[..., None], real: Callable[..., Any]) -> Callable[..., Any]:
    """``real`` until it is called the ``times``-th time."""
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*args, **kwargs) if calls < times else action(*args, **kwargs)

    return counted


def replace_then_kill(source: Path, target: Path) -> None:
    os.rename(source, target)
    raise Killed


POINTS: dict[str, tuple[Any, str, Callable[..., Any], bool]] = {
    "before writing": (Path, "write_bytes", kill, False),
    "while writing weights": (Path, "write_bytes", write_half, False),
    "before renaming weights": (os, "replace", kill, False),
    "after renaming weights": (os, "replace", replace_then_kill, False),
    "while writing the configuration": (Path, "write_text", write_half, False),
    "before renaming it": (os, "replace", nth(2, kill, os.replace), False),
    "after renaming it": (os, "replace", nth(2, replace_then_kill, os.replace), True),
    "while tidying up": (folders, "remove_leftovers", kill, True),
}


@pytest.mark.parametrize("first", [False, True], ids=["over another", "into a new folder"])
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_the_old_object_or_the_new_one(point: str, first: bool) -> None:
    if not first:
        model(0.0).save("a")
    place, name, action, complete = POINTS[point]
    if name == "replace" and complete is not None and point.endswith("renaming it"):
        action = nth(2, replace_then_kill if complete else kill, os.replace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, action)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process does not clean up
        with pytest.raises(Killed):
            model(1.0).save("a")
    if complete:
        assert_is(1.0)
    elif first:
        refused("a/config.json", error=FileNotFoundError)
    else:
        assert_is(0.0)
    model(2.0).save("a")  # what is left over is in nobody's way
    assert_is(2.0)


def assert_is(shift: float) -> None:
    found, wanted = load("a").state_dict(), model(shift).state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_two_saves_at_once_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    model(0.0).save("a")
    real, calls = os.replace, []

    def another_first(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:  # the weights are there, the configuration is not
            model(2.0).save("a")
            assert_is(2.0)
        real(source, target)

    monkeypatch.setattr(os, "replace", another_first)
    model(1.0).save("a")
    assert_is(1.0)


def test_a_save_of_an_older_object_survives_the_tidying_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model(0.0).save("a")
    real = folders.remove_leftovers

    def another_first(*found: Any) -> None:
        monkeypatch.setattr(folders, "remove_leftovers", real)
        model(0.0).save("a")  # the same content as before
        real(*found)

    monkeypatch.setattr(folders, "remove_leftovers", another_first)
    model(1.0).save("a")
    assert_is(0.0)


def test_who_reads_during_a_save_finds_the_new_object(monkeypatch: pytest.MonkeyPatch) -> None:
    model(0.0).save("a")
    real, saves = folders.read_weights, [1.0, 2.0]

    def after_a_save(*found: Any) -> Any:
        if saves:  # the configuration has been read, the weights have not
            model(saves.pop(0)).save("a")
        return real(*found)

    monkeypatch.setattr(folders, "read_weights", after_a_save)
    assert_is(2.0)


def test_leftovers_go_in_time() -> None:
    model(0.0).save("a")
    old, new = Path("a/weights-0123456789abcdef.safetensors"), Path("a/.config.json.0.tmp")
    new = Path("a/.config.json.0123456789abcdef.tmp")
    for path, age in ((old, 4000), (new, 0)):  # the new one may be another's, still being written
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    model(1.0).save("a")
    model(1.0).save("a")
    assert sorted(path.name for path in Path("a").iterdir()) == sorted(
        [new.name, "config.json", weights().name]
    )


def test_other_folders_are_left_alone() -> None:
    Path("a").mkdir()
    Path("a/thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"new, empty or one of a saved.*'thesis\.tex'"):
        model().save("a")
    shutil.rmtree("a")
    Path("a").mkdir()
    Path("a/config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(FileExistsError, match=r"'config\.json'"):
        model().save("a")
    assert Path("a/config.json").read_text() == '{"model_type": "gpt2"}'
    shutil.rmtree("a")
    Path("a").write_text("x")
    with pytest.raises(FileExistsError, match="must be a folder, got the file 'a'"):
        model().save("a")


def test_a_full_disk_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model(0.0).save("a")

    def fail(self: Path, content: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        model(1.0).save("a")
    assert_is(0.0)
    assert len(list(Path("a").iterdir())) == 2


def test_the_folder_moves_and_is_read_by_eye(monkeypatch: pytest.MonkeyPatch) -> None:
    KernelPrior(torch.randn(50, 2), 0.5).save("a")
    assert record()["object"] == part(
        "latent_ebm.kernels.KernelPrior",
        exemplars={"tensor_path": "exemplars"},
        bandwidth={"tensor_path": "bandwidth"},
    )
    monkeypatch.setenv("HOME", str(Path.cwd()))
    shutil.move("a", "b")
    assert load("~/b").exemplars.shape == (50, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: save({"a": nn.Linear(1, 1)}, "b"), "module must be a Module, got {'a'"),
        (lambda: save(nn.Linear(1, 1, device="meta"), "b"), "weight must have values"),
        (lambda: load("a", nn.Linear), "classes must be a Sequence, got <class"),
        (lambda: load("a", ["Linear"]), "classes must be a type, got 'Linear'"),
    ],
)
def test_other_arguments_are_refused(make: Callable[[], object], message: str) -> None:
    model().save("a")
    with pytest.raises(ValueError, match=message):
        make()
    assert not Path("b").exists()
