"""A part of CIFAR-10 (jpeg) to take along: ``python -m experiments.gpu.pack SOURCE DIR --train
37000``

SOURCE is the packed file of all images (see ``latent_ebm.data.Images``); a file of the same name
is written to DIR, which ``LATENT_EBM_DATA`` then names on the other machine.
"""

import argparse
from pathlib import Path

import numpy as np

from latent_ebm.data.images import PACKED, PARTS


def pack(source: Path, folder: Path, numbers: dict[str, int]) -> Path:
    """Write so many images of each part, drawn at random, in their order; return the file."""
    with np.load(source, allow_pickle=False) as data:
        content = {name: data[name] for name in data.files}
    for part in PARTS:
        names = [f"{stem}_{part}" for stem in ("jpg", "off", "y")]
        jpeg, offsets, label = (content[name] for name in names)
        chosen = np.sort(np.random.default_rng(0).permutation(len(label))[: numbers[part]])
        files = [jpeg[offsets[i] : offsets[i + 1]] for i in chosen]
        ends = np.cumsum([0, *map(len, files)])
        content.update(zip(names, (np.concatenate(files), ends, label[chosen]), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / PACKED, **content)
    return folder / PACKED


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="the packed file of all images"
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--train", type=int, default=37_000, help="training images (default: 37000)"
    )
    parser.add_argument("--test", type=int, default=2500, help="test images (default: 2500)")
    args = parser.parse_args()
    path = pack(args.source, args.folder, {"train": args.train, "test": args.test})
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
