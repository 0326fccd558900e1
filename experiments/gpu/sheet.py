"""All pictures of a folder in one, under their names: ``python -m experiments.gpu.sheet DIR
FILE``
"""

import sys
from pathlib import Path

from matplotlib.image import imread

from latent_ebm.plots import new_figure, save_figure, styled


@styled
def draw(paths: list[Path], columns: int = 4) -> object:
    """One panel a picture."""
    figure, axes = new_figure(columns, (3.2, 2.2), rows=-(-len(paths) // columns))
    for axis in axes:
        axis.set_axis_off()
    for axis, path in zip(axes, paths, strict=False):
        axis.set_title(path.stem)
        axis.imshow(imread(path), interpolation="nearest")
    return figure


def main() -> None:
    folder, file = map(Path, sys.argv[1:])
    save_figure(draw(sorted(folder.glob("*.png"))), file)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
