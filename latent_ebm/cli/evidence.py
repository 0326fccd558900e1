"""What an audit is given beside the model: prompts, terms, classifiers, pictures, a key."""

import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latent_ebm.applications import TextToImage
from latent_ebm.artefacts import load
from latent_ebm.blocks import blocks
from latent_ebm.cli.subjects import check_square
from latent_ebm.files.images import read_images
from latent_ebm.foreign import check_file, reading
from latent_ebm.responsibility import Classified, Terms
from latent_ebm.responsibility.keys import check_key
from latent_ebm.responsibility.measures import check_reference
from latent_ebm.responsibility.representation import check_target
from latent_ebm.responsibility.watermark import SIDE
from latent_ebm.scorers import Scorer

MAX_LINES = 2**24  # bytes of a file of prompts or terms
MAX_KEY = 2**16  # bytes
UNSAFE = 1  # the class of two that is refused


class Attribute(NamedTuple):
    """A classifier, and the names of its classes, with their shares in the target if there is
    one.
    """

    name: str
    classify: Callable[[Tensor], Tensor]
    categories: list[str]
    target: dict[str, float] | None


class Evidence(NamedTuple):
    """What pictures and prompts are compared with; None for what was not given."""

    terms: Terms | None
    scorer: Scorer | None
    unsafe: Classified | None
    attributes: list[Attribute]
    pictures: tuple[Tensor, Tensor] | None
    key: bytes | None


def read_lines(file: str, option: str) -> list[str]:
    """The lines of a text file that are not blank.

    Raises ``ValueError`` if there are none, or the file is no text in UTF-8.
    """
    what = f"a text per line ({option})"
    path = check_file(file, what)
    if (size := path.stat().st_size) > MAX_LINES:
        raise ValueError(f"{path} must have at most {MAX_LINES:,} bytes, got {size:,}")
    with reading(path, what):
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise ValueError(f"{path} must hold {what}, got none")
    return found


def read_key(file: str, model: TextToImage) -> bytes:
    """The key in a file. Raises ``ValueError`` for one that is too short or long, and if the
    pictures of ``model`` are too small for a watermark.
    """
    if min(model.shape[1:]) < SIDE:
        raise ValueError(
            f"--key needs pictures of at least {SIDE} pixels a side, got {model.shape[1:]}"
        )
    path = check_file(file, "a key (--key)")
    if (size := path.stat().st_size) > MAX_KEY:
        raise ValueError(f"--key must have at most {MAX_KEY:,} bytes, got {size:,}")
    key = path.read_bytes()
    check_key(key)
    return key


def read_classifier(folder: str, size: int, model: TextToImage) -> Callable[[Tensor], Tensor]:
    """What maps pictures (n, C, H, W) to probabilities (n, ``size``), by the network that
    ``latent_ebm.save`` wrote to ``folder``.

    Raises ``ValueError`` unless it takes the pictures of ``model`` and returns ``size`` logits.
    """
    network = load(folder)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{folder} must hold a classifier, got a {type(network).__name__}")

    @torch.no_grad()
    def classify(x: Tensor) -> Tensor:
        with reading(folder, f"a classifier of pictures {model.shape}"):
            logits = torch.cat([network(x[rows]) for rows in blocks(len(x))])
        if logits.shape != (len(x), size) or not bool(logits.isfinite().all()):
            raise ValueError(
                f"{folder} must hold a classifier that returns {size} finite logits, got "
                f"{reprlib.repr(logits[0].tolist())}"
            )
        return logits.softmax(1)

    classify(torch.zeros(1, *model.shape))
    return classify


@torch.no_grad()
def read_scorer(folder: str, prompts: Sequence[str], model: TextToImage) -> Scorer:
    """The scorer that ``latent_ebm.save`` wrote to ``folder``. Raises ``ValueError`` for another
    object, and if it refuses one of ``prompts`` or the pictures of ``model``.
    """
    scorer = load(folder)
    if not isinstance(scorer, Scorer):
        raise ValueError(f"{folder} must hold a scorer, got a {type(scorer).__name__}")
    scorer.text_features(prompts)
    with reading(folder, f"a scorer of pictures {model.shape}"):
        scorer.image_features(torch.zeros(1, *model.shape))
    return scorer


def read_filter(folder: str, threshold: float, model: TextToImage) -> Classified:
    """The filter of pictures of a classifier of two classes."""
    classify = read_classifier(folder, 2, model)
    return Classified(lambda x: classify(x)[:, UNSAFE], threshold, "unsafe")


def read_attribute(words: Sequence[str], model: TextToImage) -> Attribute:
    """The attribute of ``--attribute DIR CLASS ...``, whose classes may have shares."""
    folder, *classes = words
    pairs = [name.rpartition("=") if "=" in name else (name, "", "") for name in classes]
    names, shares = [pair[0] for pair in pairs], [pair[2] for pair in pairs if pair[1]]
    different = len(set(names)) == len(names) > 1 and all(name.strip() for name in names)
    if not different or len(shares) not in (0, len(names)):
        raise ValueError(
            "--attribute must name a folder and two different classes or more, all with a share "
            f"or none, got {' '.join(words)!r}"
        )
    try:
        target = dict(zip(names, map(float, shares), strict=True)) if shares else None
    except ValueError:
        raise ValueError(f"--attribute must have numbers as shares, got {shares}") from None
    if target is not None:
        check_target(target, names)
    return Attribute(Path(folder).name, read_classifier(folder, len(names), model), names, target)


def read_pictures(
    reference: str | None, held_out: str | None, model: TextToImage
) -> tuple[Tensor, Tensor] | None:
    """Training pictures and held-out ones (n, C, H, W), if there are any."""
    if reference is None and held_out is None:
        return None
    if reference is None or held_out is None:
        raise ValueError("--reference and --held-out must be given together, got one of them")
    train, other = (read_folder(Path(name).expanduser(), model) for name in (reference, held_out))
    check_reference(train, other, model.shape)
    return train, other


def read_folder(folder: Path, model: TextToImage) -> Tensor:
    """The pictures (n, C, H, W) of a folder in the size of ``model``. What was decided about them
    is printed.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there must be a folder of images {str(folder)!r}")
    rows = read_images(folder, check_square(model), colour=model.shape[0] == 3)
    for note in rows.notes:
        print(f"{folder}: {note}")
    return torch.from_numpy(rows.x).float()
