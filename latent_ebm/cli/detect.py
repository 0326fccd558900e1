"""``latent-ebm detect``: from two files to scores, p-values and a page that explains them.

What is fitted, and how p-values come about, is in ``calibrated``.
"""

import argparse
import csv
from pathlib import Path

from latent_ebm.cli.calibrated import Trained, is_saved, judge, load, save, say, train
from latent_ebm.cli.errors import WrongUsage
from latent_ebm.cli.files import check_apart, check_folder, check_output, real
from latent_ebm.cli.tables import Table, check_alike, make_reader, read_table
from latent_ebm.detection.files import FILE_NAME
from latent_ebm.detection.findings import Findings
from latent_ebm.detection.report import make_report
from latent_ebm.writing import atomic_path


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
    print(f"{summary(findings)}: {written}")


def analyse(args: argparse.Namespace) -> tuple[Trained, Table, Findings, str]:
    """What is to be written. Raises ``ValueError``, ``OSError`` or ``ImportError`` for what cannot
    be used.
    """
    check_places(args)
    for option, what in (
        ("folds", "fits several detectors"),
        ("encoder", "is no part of a saved detector"),
    ):
        if args.save is not None and getattr(args, option) is not None:
            raise ValueError(f"--save must be left out with --{option}, which {what}")
    if is_saved(args.train):
        trained = load(args)
        new = read(args.score, args, trained)
    else:
        table = read(args.train, args)
        new = read(args.score, args, table)
        trained = train(args, table, len(new.x))
        trained = trained._replace(facts={**facts_of("Training data", table), **trained.facts})
    findings = judge(trained, new.x, args.alpha)
    for warning in findings.warnings:
        say(f"warning: {warning}")
    asked = {"Columns left out as asked": ", ".join(args.drop)} if args.drop else {}
    facts = {**trained.facts, **facts_of("New data", new), **asked, "Level (alpha)": args.alpha}
    columns = new.columns if new.has_header else trained.columns
    html = (
        make_report(trained.detector, new.x, findings, columns, new.called, facts)
        if args.report
        else ""
    )
    return trained, new, findings, html


def check_places(args: argparse.Namespace) -> None:
    """Raise ``ValueError`` or ``OSError`` unless all outputs can be written and none lies where an
    input does.
    """
    outputs = [check_output(args.out, (".csv",))]
    if args.report is not None:
        outputs.append(check_output(args.report, (".html",), "--report"))
    if args.save is not None:
        outputs.append(check_folder(args.save, "--save"))
        if outputs[-1].is_dir() and any(
            not path.name.startswith((FILE_NAME, f".{FILE_NAME}."))
            for path in outputs[-1].iterdir()
        ):
            raise ValueError(
                "--save must name a new or empty folder or one of a saved detector, got "
                f"{args.save!r}"
            )
        if any(real(outputs[-1]) == real(path).parent for path in outputs[:-1]):
            raise ValueError(
                f"--save must name a folder of its own, got {args.save!r}, where other results "
                "are to go"
            )
    inputs = [args.train, args.score, *([] if args.encoder is None else [args.encoder])]
    check_apart(outputs, inputs)


def read(name: str, args: argparse.Namespace, known: Table | Trained | None = None) -> Table:
    """The rows or images that the user calls ``name``, which must be of the kind of those that are
    ``known`` already.
    """
    features = known.columns if known is not None and known.has_header else None
    shape = args.image_shape and tuple(args.image_shape)
    colour = (
        True if known is not None and known.shape and known.shape[0] == 3 else None
    )  # grey images may be read so
    table = read_table(Path(name), shape, make_reader(args), args.size, features, colour)
    if known is not None:
        check_alike(table, known.columns, known.shape)
    for note in table.notes:
        say(f"{name}: {note}")
    return table


def facts_of(what: str, table: Table) -> dict[str, str]:
    """Where the rows of ``table``, called ``what``, come from, and what was left out of them."""
    notes = {f"{what}, as read": "; ".join(table.notes)} if table.notes else {}
    return {what: f"{table.path}: {table.size}", **notes}


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


def summary(findings: Findings) -> str:
    """What was found, and how much could have been, on one line."""
    found, beyond = findings.selected.sum(), findings.beyond.sum()
    text = f"{found} of {len(findings.scores)} stand out"
    if found or findings.smallest == 1:
        return text
    lie = (
        f", {beyond} {'lies' if beyond == 1 else 'lie'} beyond every normal one" if beyond else ""
    )
    folds = "" if findings.num_folds else "; --folds 10 holds out every normal one"
    return (
        f"{text}{lie} (with {len(findings.normal_scores)} normal ones held out, "
        f"{findings.smallest} or more must lie "
        f"there before any is selected, and with {findings.enough} a single one may be{folds})"
    )
