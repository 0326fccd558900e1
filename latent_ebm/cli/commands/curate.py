"""``latent-ebm curate``: which captioned images to keep, and what near copies weigh."""

import argparse
from pathlib import Path

from latent_ebm.cli.commands.options import Commands, add_command, positive


def add(commands: Commands) -> None:
    more = (
        "DIR holds images and captions.csv or captions.jsonl. Exact copies are dropped, and near "
        "copies share a weight; each option adds a filter. A run that was killed goes on with the "
        "same command. CaptionedImages(DIR, table=OUT/captions.jsonl) reads the result."
    )
    command = add_command(
        commands, "curate", "filter and weigh a folder of captioned images", more
    )
    command.add_argument("folder", metavar="DIR", help="the folder; nothing in it is changed")
    command.add_argument(
        "--out",
        required=True,
        metavar="OUT",
        help="a new folder, or that of an earlier run with the same options",
    )
    command.add_argument(
        "--least-side", type=positive, metavar="PIXELS", help="drop images with a shorter side"
    )
    command.add_argument(
        "--sharpness", type=float, metavar="S", help="drop images that are less sharp than S"
    )
    command.add_argument(
        "--noise", type=float, metavar="N", help="drop images with more noise than N of 255"
    )
    command.add_argument(
        "--terms", metavar="FILE", help="drop captions with a term of this file, one per line"
    )
    command.add_argument(
        "--personal-data",
        action="store_true",
        help="drop captions with an e-mail address, a phone number or a card number",
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.evidence import read_lines
    from latent_ebm.cli.files import check_folder
    from latent_ebm.data import curation

    check_folder(args.out)
    filters: list[curation.Filter] = []
    if args.least_side is not None:
        filters.append(curation.Size(args.least_side))
    if args.sharpness is not None:
        filters.append(curation.Sharpness(args.sharpness))
    if args.noise is not None:
        filters.append(curation.Noise(args.noise))
    if args.terms is not None:
        filters.append(curation.Terms(read_lines(args.terms, "--terms")))
    if args.personal_data:
        filters.append(curation.PersonalData())
    report = curation.curate(args.folder, filters, args.out)
    for count in report.counts:
        print(f"{count.filter}: {count.rows_in} in, {count.rows_out} out")
    print(
        f"{len(report.kept)} of {len(report.decisions)} rows: {Path(args.out) / 'captions.jsonl'}"
    )
