"""``latent-ebm sample``, ``score`` and ``evaluate``: what a trained model is good for, from its
checkpoint.
"""

import argparse
import csv
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latent_ebm import plots
from latent_ebm.cli.checkpoints import applied, load_rule
from latent_ebm.cli.files import check_apart, check_folder, check_output
from latent_ebm.cli.tables import make_reader
from latent_ebm.data import DataModule
from latent_ebm.data.ranges import compare_ranges
from latent_ebm.files import Rows, read_images
from latent_ebm.learning.base import LearningRule
from latent_ebm.learning.latent import LatentRule
from latent_ebm.model import EnergyTerms
from latent_ebm.writing import atomic_path
from samplers.base import check_finite

BATCH_SIZE = 500
SPLITS = ("train", "val", "test")


def run_sample(args: argparse.Namespace) -> None:
    """``latent-ebm sample``: what the model generates."""
    out = check_output(args.out, (".png", ".npz"))
    rule, data = load_rule(args.checkpoint, args.trust)
    check_apart([out], [args.checkpoint, *data.files])
    options = generation_options(rule, {"num_steps": args.steps, "guidance": args.guidance})
    torch.manual_seed(args.seed)
    with torch.no_grad(), applied(args.checkpoint):
        found = rule.generate(args.num, **options)
    for name, value in found.items():
        check_finite(
            f"samples {name}", value, f"the weights of {args.checkpoint} may have diverged"
        )
    if out.suffix == ".png":
        plots.save_grid(data.as_pictures(found["x"]), out)
    else:
        found["x"] = data.inverse_transform(found["x"])
        with atomic_path(out) as path, path.open("wb") as file:
            np.savez(file, **{name: value.numpy() for name, value in found.items()})  # pyright: ignore[reportArgumentType]
    print(f"{args.num} samples: {out}")


def generation_options(rule: LearningRule, options: dict[str, Any]) -> dict[str, Any]:
    """Those of ``options`` that are given. Raises ``ValueError`` for one that ``rule.generate``
    has no argument for.
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


def run_score(args: argparse.Namespace) -> None:
    """``latent-ebm score``: the energy terms of data at inferred latents."""
    out = check_output(args.out, (".csv",))
    rule, data = load_latent_rule(args)
    check_apart([out], [args.checkpoint, args.data, *data.files])
    with applied(args.checkpoint):
        x, ids = read_data(args, rule, data)
        torch.manual_seed(args.seed)
        terms = energy_terms(rule, x)
    check_finite("energies", terms.joint, f"the weights of {args.checkpoint} may have diverged")
    write_scores(out, terms, ids)
    print(f"{len(x)} scores: {out}")


def run_evaluate(args: argparse.Namespace) -> None:
    """``latent-ebm evaluate``: held-out figures."""
    from latent_ebm.cli.held_out import evaluate_checkpoint, print_figures

    out = check_folder(args.out)
    rule, data = load_latent_rule(args)
    check_apart([out, *out.glob("*")], [args.checkpoint, *data.files])
    torch.manual_seed(args.seed)
    with applied(args.checkpoint):
        figures = evaluate_checkpoint(rule, data, out, args.seed, args.quick)
    print_figures(figures)
    print(f"written to {out}")


def load_latent_rule(args: argparse.Namespace) -> tuple[LatentRule, DataModule]:
    """The rule and data of a checkpoint. Raises ``ValueError`` if it does not hold a latent
    model.
    """
    rule, data = load_rule(args.checkpoint, args.trust)
    if not isinstance(rule, LatentRule):
        raise ValueError(
            f"{args.checkpoint} must hold a latent model to be scored, got {type(rule).__name__}"
        )
    return rule, data


def read_data(
    args: argparse.Namespace, rule: LatentRule, data: DataModule
) -> tuple[Tensor, list[str]]:
    """Rows x (n, \\*event) of the checkpoint's own ``data`` (train, val, test) or of a file, and
    what they are called.

    A file has the units of the training data's files. Raises ``ValueError`` if its rows have
    another number of entries or other columns; says on stderr what was left out of it, and whether
    its range is odd.
    """
    name = args.data
    if name in SPLITS:
        data.prepare_data()
        data.setup()
        x = getattr(data, name).x
        return x, [str(i) for i in range(len(x))]
    rows = read_file(Path(name), args, event_of(rule), data.names)
    x = shaped(torch.from_numpy(rows.x), rule, name)
    odd = compare_ranges(x, *data.range) if data.range else None
    for note in [*rows.notes, *([odd] if odd else [])]:
        print(f"latent-ebm: {name}: {note}", file=sys.stderr)
    return data.transform(x).float(), rows.ids


def read_file(
    path: Path, args: argparse.Namespace, event: torch.Size, names: list[str] | None
) -> Rows:
    """What ``path`` holds, a file of rows with columns of these ``names`` or a folder of images,
    for data (\\*event).
    """
    if path.is_dir():
        return read_images(path, args.size, args.max_entries, colour=event[0] == 3)
    if args.size is not None:
        raise ValueError(f"--size must be left out for files of rows, got {args.size}")
    return make_reader(args).read(path, names)


def shaped(rows: Tensor, rule: LatentRule, name: str) -> Tensor:
    """``rows`` of the file ``name`` in the shape (n, \\*event) of the model's data, else
    ``ValueError``.
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
    """The shape of one datum of the model."""
    with torch.no_grad():
        return rule.model.decode(rule.model.prior.base.sample(1)).shape[1:]


def energy_terms(rule: LatentRule, x: Tensor) -> EnergyTerms:
    """Energy terms (n,) of x (n, \\*event), inferred in batches."""

    def parts() -> Iterator[EnergyTerms]:
        with torch.no_grad():
            for batch in x.split(BATCH_SIZE):
                yield rule.predict_step(batch)

    return EnergyTerms(*map(torch.cat, zip(*parts(), strict=True)))


def write_scores(path: Path, terms: EnergyTerms, ids: Sequence[str]) -> None:
    """A table with one line a row of the data, called by ``ids``."""
    columns = terms.columns()
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", *columns])
        for index, row in zip(ids, torch.stack(list(columns.values()), 1).tolist(), strict=True):
            writer.writerow([index, *(f"{value:.6g}" for value in row)])
