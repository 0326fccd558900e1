"""``latent-ebm detect``: from two files to scores, p-values and a page that explains them.

Half of the training rows, at most a thousand, are kept from the model. Their scores are what a normal row gets that the model
has never seen, so that p-values, and promises on false alarms, come from comparison with them.
"""

import argparse
import csv
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array
from tqdm import tqdm

from latent_ebm.applications import ConformalCalibrator, LatentEBMDetector
from latent_ebm.applications.detector_files import FILE_NAME, load_detector, save_detector
from latent_ebm.applications.pictures import atomic_path
from latent_ebm.applications.report import Findings, make_report
from latent_ebm.cli.errors import WrongUsage
from latent_ebm.cli.files import check_apart, check_folder, check_output
from latent_ebm.cli.tables import Table, check_alike, make_reader, read_table
from latent_ebm.foreign import reading

MAX_HELD_OUT, BLOCK = 1000, 1000

Array = NDArray[np.float64]


class Trained(NamedTuple):
    """A detector, the scores (m,) it gives to normal rows that it has not seen, and how the rows it scores must look.

    ``facts`` are for the report.
    """

    detector: LatentEBMDetector
    normal_scores: Array
    columns: list[str]
    has_header: bool
    facts: dict[str, Any]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(C, H, W) if the rows are images."""
        return None if self.detector.image_shape is None else tuple(self.detector.image_shape)


class ScoresAsRows(BaseEstimator):
    """A detector of rows (n, 1) that are scores already, so that these are computed once."""

    def fit(self, X: Array, y: None = None) -> "ScoresAsRows":
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def score_samples(self, X: Array) -> Array:
        return X[:, 0]


def run_detect(args: argparse.Namespace) -> None:
    """``latent-ebm detect``. All is computed before anything is written."""
    try:
        trained, new, findings, html = analyse(args)
    except (ValueError, OSError, ImportError) as error:
        raise WrongUsage(str(error)) from error
    if args.save is not None:
        save(trained, Path(args.save))
    write_findings(Path(args.out), new.rows, findings)
    if args.report is not None:
        with atomic_path(args.report) as temporary:
            temporary.write_text(html, encoding="utf-8")
    written = ", ".join(name for name in (args.out, args.report, args.save) if name)
    print(f"{findings.selected.sum()} of {len(new.x)} stand out: {written}")


def analyse(args: argparse.Namespace) -> tuple[Trained, Table, Findings, str]:
    """What is to be written. Raises ``ValueError``, ``OSError`` or ``ImportError`` for what cannot be used."""
    check_places(args)
    if is_saved(args.train):
        trained = load(args)
        new = read(args.score, args, trained)
    else:
        table = read(args.train, args)
        new = read(args.score, args, table)
        trained = train(args, table)
    findings = find(trained.normal_scores, scores_of(trained.detector, new.x), args.alpha)
    facts = {**trained.facts, **facts_of("New data", new), "Level (alpha)": args.alpha}
    columns = new.columns if new.has_header else trained.columns
    html = make_report(trained.detector, new.x, findings, columns, new.called, facts) if args.report else ""
    return trained, new, findings, html


def check_places(args: argparse.Namespace) -> None:
    """Raise ``ValueError`` or ``OSError`` unless all outputs can be written and none lies where an input does."""
    outputs = [check_output(args.out, (".csv",))]
    if args.report is not None:
        outputs.append(check_output(args.report, (".html",), "--report"))
    if args.save is not None:
        outputs.append(check_folder(args.save, "--save"))
        if outputs[-1].is_dir() and any(
            not path.name.startswith((FILE_NAME, f".{FILE_NAME}.")) for path in outputs[-1].iterdir()
        ):
            raise ValueError(f"--save must name a new or empty folder or one of a saved detector, got {args.save!r}")
    check_apart(outputs, [args.train, args.score])


def read(name: str, args: argparse.Namespace, known: Table | Trained | None = None) -> Table:
    """The rows or images that the user calls ``name``, which must be of the kind of those that are ``known`` already."""
    features = known.columns if known is not None and known.has_header else None
    shape = args.image_shape and tuple(args.image_shape)
    table = read_table(Path(name), shape, make_reader(args), args.size, features)
    if known is not None:
        check_alike(table, known.columns, known.shape)
    for note in table.notes:
        say(f"{name}: {note}")
    return table


def facts_of(what: str, table: Table) -> dict[str, str]:
    """Where the rows of ``table``, called ``what``, come from, and what was left out of them."""
    notes = {f"{what}, as read": "; ".join(table.notes)} if table.notes else {}
    return {what: f"{table.path}: {table.size}", **notes}


def train(args: argparse.Namespace, table: Table) -> Trained:
    """Fit a detector to some training rows and score the others."""
    if len(table.x) < 4:
        raise ValueError(f"{args.train} must hold at least 4 rows, got {len(table.x)}")
    num_held_out = min(len(table.x) // 2, MAX_HELD_OUT)
    check_alpha(args.alpha, num_held_out)
    fitted, held_out = map(np.asarray, train_test_split(table.x, test_size=num_held_out, random_state=args.seed))
    say(f"fitting {len(fitted)} of {table.size}, {len(held_out)} are held out")
    detector = LatentEBMDetector(args.energy or "joint", image_shape=table.shape, random_state=args.seed, verbose=True)
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):  # where Lightning's bar belongs
        warnings.simplefilter("ignore")  # Lightning's advice on workers and loggers
        detector.fit(fitted)
    facts = {**facts_of("Training data", table), "Seed": args.seed}
    return Trained(detector, scores_of(detector, held_out), table.columns, table.has_header, facts)


def load(args: argparse.Namespace) -> Trained:
    """What ``save`` wrote."""
    for option in ("save", "energy"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option} must be left out with a saved detector, got {getattr(args, option)}")
    detector, kept = load_detector(LatentEBMDetector, args.train)
    with reading(args.train, "a detector as detect --save wrote it"):
        trained = Trained(detector, np.array(kept.pop("normal_scores"), dtype=np.float64), **kept)
        check_array(trained.normal_scores, ensure_2d=False)
    check_alpha(args.alpha, len(trained.normal_scores))
    return trained


def save(trained: Trained, folder: Path) -> None:
    """Write the detector, and what it takes to use it, to ``folder``."""
    notes = {**trained._asdict(), "normal_scores": trained.normal_scores.tolist()}
    save_detector(notes.pop("detector"), folder, notes)


def is_saved(path: str) -> bool:
    """Whether ``path`` is a folder with a detector in it."""
    return (Path(path).expanduser() / FILE_NAME).is_file()


def check_alpha(alpha: float, num: int) -> None:
    """Raise ``ValueError`` if nothing can be found at the level ``alpha`` with ``num`` rows held out."""
    if alpha < 1 / (num + 1):
        raise ValueError(
            f"--alpha must be at least {1 / (num + 1):.3g} with {num} normal rows held out, got {alpha}; "
            f"more training rows allow a smaller one"
        )


def scores_of(detector: LatentEBMDetector, x: Array) -> Array:
    """Scores (n,) of rows ``x`` (n, d), with a progress bar."""
    blocks = [x[start : start + BLOCK] for start in range(0, len(x), BLOCK)]
    bar = tqdm(blocks, desc="scoring", unit="block", disable=len(blocks) < 2)
    return np.concatenate([detector.score_samples(block) for block in bar])


def find(normal_scores: Array, scores: Array, alpha: float) -> Findings:
    """P-values (n,) of new ``scores`` (n,) among ``normal_scores`` (m,), and which stand out at the level ``alpha``."""
    calibrator = ConformalCalibrator(ScoresAsRows()).calibrate(normal_scores[:, None])
    rows = scores[:, None]
    selected = calibrator.select(rows, alpha)
    return Findings(
        scores, calibrator.p_values(rows), selected, normal_scores, calibrator.infer_threshold(alpha), alpha
    )


def write_findings(path: Path, rows: list[str], findings: Findings) -> None:
    """A table with one line a row."""
    outlier = findings.p_values <= findings.alpha
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "score", "p_value", "outlier", "selected"])
        for row, score, p, *flags in zip(
            rows, findings.scores, findings.p_values, outlier, findings.selected, strict=True
        ):
            writer.writerow([row, f"{score:.9g}", f"{p:.6g}", *map(int, flags)])


def say(text: str) -> None:
    """A line on progress."""
    print(f"latent-ebm: {text}", file=sys.stderr)
