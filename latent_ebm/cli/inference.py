"""What a trained model is good for: samples, scores and metrics from its checkpoint."""

import csv
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent_ebm import LatentModel, Prior, load, plots
from latent_ebm.applications import TextToImage
from latent_ebm.applications.pipelines import INDEX
from latent_ebm.artefacts.folders import config_path
from latent_ebm.blocks import BLOCK
from latent_ebm.cli.checkpoints import applied, load_rule
from latent_ebm.cli.files import check_apart, check_folder, check_output, save_arrays
from latent_ebm.cli.held_out import evaluate_checkpoint, print_metrics
from latent_ebm.cli.predictions import numbers
from latent_ebm.conditions import Condition, Conditioner
from latent_ebm.data import DataModule
from latent_ebm.data.ranges import compare_ranges
from latent_ebm.denoisers import GaussianMixtureDenoiser
from latent_ebm.files import Reader, Rows, read_images
from latent_ebm.learning import Denoising
from latent_ebm.learning.base import LearningRule
from latent_ebm.learning.latent import LatentRule
from latent_ebm.model import EnergyTerms
from latent_ebm.writing import atomic_path
from samplers.run_checks import check_finite

SPLITS = ("train", "val", "test")


def sample(
    checkpoint: str,
    file: str,
    num: int,
    options: Mapping[str, float | None],
    *,
    seed: int,
    trust: Sequence[str],
) -> None:
    """Write ``num`` samples of the model of ``checkpoint`` to ``file``, .png or .npz.

    ``options`` are arguments of the rule's ``generate``; those that are None are left out. A
    folder that ``save`` wrote may stand in place of the checkpoint; its samples have the units of
    the model.
    """
    out = check_output(file, (".png", ".npz"))
    if (Path(checkpoint) / INDEX).is_file():
        raise ValueError(f"--prompt must say what to draw, as {checkpoint} holds a pipeline")
    if config_path(checkpoint).is_file():
        sample_saved(checkpoint, out, num, options, seed)
        return
    rule, data = load_rule(checkpoint, trust)
    check_apart([out], [checkpoint, *data.files])
    given = generation_options(rule, options)
    torch.manual_seed(seed)
    with torch.no_grad(), applied(checkpoint):
        draw: Callable[..., dict[str, Tensor]] = rule.generate
        found = draw(num, condition_in_turn(rule, num, given), **given)
    for name, value in found.items():
        check_finite(f"samples {name}", value, f"the weights of {checkpoint} may have diverged")
    if out.suffix == ".png":
        plots.save_grid(data.as_pictures(found["x"]), out)
    else:
        found["x"] = data.inverse_transform(found["x"])
        save_arrays(out, {name: numbers(value) for name, value in found.items()})
    print(f"{num} samples: {out}")


def sample_saved(
    folder: str, out: Path, num: int, options: Mapping[str, float | None], seed: int
) -> None:
    """Write ``num`` samples of the object in ``folder``, which must know how to draw them."""
    for name, value in options.items():
        if value is not None:
            flag = f"--{name.removeprefix('num_')}"
            raise ValueError(f"{flag} must be left out for a saved object, got {value}")
    check_apart([out], list(Path(folder).rglob("*")))
    saved = load(folder)
    if isinstance(saved, TextToImage):
        raise ValueError(f"--prompt must say what to draw, as {folder} holds a TextToImage")
    if not isinstance(saved, LatentModel | Prior | GaussianMixtureDenoiser):
        raise ValueError(
            f"{folder} must hold a latent model or another object with samples of its own, got a "
            f"{type(saved).__name__}"
        )
    with torch.no_grad(), applied(folder):
        x = saved.sample(num, generator=torch.Generator().manual_seed(seed))
    check_finite("samples x", x, f"the weights of {folder} may have diverged")
    if out.suffix == ".png":
        plots.save_grid(x, out)
    else:
        save_arrays(out, {"x": numbers(x)})
    print(f"{num} samples: {out}")


def generation_options(rule: LearningRule, options: Mapping[str, float | None]) -> dict[str, Any]:
    """Those of ``options`` that are given. Raises ``ValueError`` for one that ``rule.generate``
    does not take.
    """
    given = {name: value for name, value in options.items() if value is not None}
    known = inspect.signature(rule.generate).parameters
    for name in given:
        if name not in known:
            flag = f"--{name.removeprefix('num_')}"
            raise ValueError(
                f"{flag} must be left out for samples of {type(rule).__name__}, got {given[name]}"
            )
    return given


def condition_in_turn(
    rule: LearningRule, num: int, options: Mapping[str, float]
) -> Condition | None:
    """Classes in turn for a conditional student, and for a teacher with guidance; otherwise None,
    an unknown condition.
    """
    conditioner = getattr(rule, "conditioner", None)
    asked = "guidance" in options or not isinstance(rule, Denoising)
    return conditioner.in_turn(num) if isinstance(conditioner, Conditioner) and asked else None


def score(
    checkpoint: str,
    source: str,
    file: str,
    reader: Reader,
    size: int | None,
    *,
    seed: int,
    trust: Sequence[str],
) -> None:
    """Write the energy terms of the data ``source`` under the model of ``checkpoint`` to
    ``file``.
    """
    out = check_output(file, (".csv",))
    rule, data = load_latent_rule(checkpoint, trust)
    check_apart([out], [checkpoint, source, *data.files])
    with applied(checkpoint):
        x, ids = own_data(source, data) or other_data(source, rule, data, reader, size)
        torch.manual_seed(seed)
        terms = energy_terms(rule, x)
    check_finite("energies", terms.joint, f"the weights of {checkpoint} may have diverged")
    write_scores(out, terms, ids)
    print(f"{len(x)} scores: {out}")


def evaluate(
    checkpoint: str, folder: str, quick: bool, *, seed: int, trust: Sequence[str]
) -> None:
    """Write the held-out metrics and figures of the model of ``checkpoint`` to ``folder``."""
    out = check_folder(folder)
    rule, data = load_latent_rule(checkpoint, trust)
    check_apart([out, *out.glob("*")], [checkpoint, *data.files])
    torch.manual_seed(seed)
    with applied(checkpoint):
        metrics = evaluate_checkpoint(rule, data, out, seed, quick)
    print_metrics(metrics)
    print(f"written to {out}")


def load_latent_rule(checkpoint: str, trust: Sequence[str]) -> tuple[LatentRule, DataModule]:
    """The rule and data of a checkpoint. Raises ``ValueError`` if it does not hold a latent
    model.
    """
    rule, data = load_rule(checkpoint, trust)
    if not isinstance(rule, LatentRule):
        raise ValueError(
            f"{checkpoint} must hold a latent model to be scored, got {type(rule).__name__}"
        )
    return rule, data


def own_data(source: str, data: DataModule) -> tuple[Tensor, list[str]] | None:
    """Rows x (n, \\*event) of one part of the checkpoint's own ``data``, and their numbers; None
    if ``source`` names no part.
    """
    if source not in SPLITS:
        return None
    data.prepare_data()
    data.setup()
    x = getattr(data, source).x
    return x, [str(i) for i in range(len(x))]


def other_data(
    source: str, rule: LatentRule, data: DataModule, reader: Reader, size: int | None
) -> tuple[Tensor, list[str]]:
    """Rows x (n, \\*event) of the file or folder ``source``, and their names.

    It must have the units of the training data's files. Prints on stderr what was left out and
    whether the range of the values is unusual. Raises ``ValueError`` for rows with another number
    of entries or other columns than the training data.
    """
    rows = read_file(Path(source), reader, size, event_of(rule), data.names)
    x = shaped(torch.from_numpy(rows.x), rule, source)
    odd = compare_ranges(x, *data.range) if data.range else None
    for note in [*rows.notes, *([odd] if odd else [])]:
        print(f"latent-ebm: {source}: {note}", file=sys.stderr)
    return data.transform(x).float(), rows.ids


def read_file(
    path: Path, reader: Reader, size: int | None, event: torch.Size, names: list[str] | None
) -> Rows:
    """The content of ``path``, a file of rows with columns of these ``names`` or a folder of
    images, for a model of data (\\*event).
    """
    if path.is_dir():
        return read_images(path, size, reader.max_entries, colour=event[0] == 3)
    if size is not None:
        raise ValueError(f"--size must be left out for files of rows, got {size}")
    return reader.read(path, names)


def shaped(rows: Tensor, rule: LatentRule, name: str) -> Tensor:
    """``rows`` of the file ``name`` in the shape (n, \\*event) of the model's data. Raises
    ``ValueError`` if they do not fit.
    """
    event = event_of(rule)
    shape = [size for size in event if size > 1] or [1]  # a grey image may lack its channel axis
    if list(rows.shape[1:]) not in ([event.numel()], shape, list(event)):
        raise ValueError(
            f"{name} must hold rows of the model's shape {tuple(event)}, got "
            f"{tuple(rows.shape[1:])}"
        )
    return rows.view(-1, *event)


def event_of(rule: LatentRule) -> torch.Size:
    """The shape of one data point of the model."""
    with torch.no_grad():
        return rule.model.decode(rule.model.prior.base.sample(1)).shape[1:]


def energy_terms(rule: LatentRule, x: Tensor) -> EnergyTerms:
    """Energy terms (n,) of x (n, \\*event), with latents inferred in batches."""

    def parts() -> Iterator[EnergyTerms]:
        with torch.no_grad():
            for batch in x.split(BLOCK):
                yield rule.predict_step(batch)

    return EnergyTerms(*map(torch.cat, zip(*parts(), strict=True)))


def write_scores(path: Path, terms: EnergyTerms, ids: Sequence[str]) -> None:
    """Write a table with one line per row of the data; ``ids`` name the rows."""
    columns = terms.columns()
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", *columns])
        for index, row in zip(ids, torch.stack(list(columns.values()), 1).tolist(), strict=True):
            writer.writerow([index, *(f"{value:.6g}" for value in row)])
