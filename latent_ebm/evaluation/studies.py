"""Human evaluation: pairs of pictures as one static page, and the files of ratings that it gives.

A rater sees two pictures side by side and says which one is better, or that neither is. Five
questions are asked one after another, each for all pairs (Imagen 3, arXiv:2408.07009). The page
knows no model: which picture is whose is decided at random and written to a key that stays with
whoever runs the study.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latent_ebm.evaluation.ratings import Rating
from latent_ebm.foreign import read_json
from latent_ebm.plots.images import image_address
from latent_ebm.text.tokenizer import check_prompt
from latent_ebm.writing import atomic_folder
from samplers.checks import check_kind, is_whole

QUESTIONS = {
    "preference": "Which picture would you rather have as the answer to the text?",
    "alignment": "Which picture shows better what the text says?",
    "appeal": "Which picture is more appealing, whatever it shows?",
    "detailed alignment": "Look at every detail of the text: which picture gets more right?",
    "counting": "Count the things: in which picture are their numbers closer to the text?",
}
WITHOUT_PROMPT = ("appeal",)  # questions about the pictures alone
FORMAT = "latent_ebm ratings 1"
PAGE, KEY = "page", "key.json"
SIDES = ("left", "right")
INDIFFERENT = "indifferent"
SMALL = 256  # pixels of a side, up to which single pixels are shown


class Pair(NamedTuple):
    """What two models, ``first`` and ``second``, drew for a prompt: pictures (1 or 3, H, W) in
    [-1, 1], which may differ in size. ``questions`` are the names of those that are asked.
    """

    prompt: str
    first: str
    second: str
    first_image: Tensor
    second_image: Tensor
    questions: tuple[str, ...] = tuple(QUESTIONS)


def export_study(
    pairs: Sequence[Pair],
    folder: str | os.PathLike[str],
    *,
    title: str = "Which picture is better?",
    generator: torch.Generator | None = None,
) -> None:
    """Write a study to a new ``folder``: ``page/index.html`` for the raters, and ``key.json``,
    which tells the models and must not reach them.

    The page holds all pictures and loads nothing else, from a server or as a file.

    Args:
        pairs: What is compared.
        folder: A new folder.
        title: The heading of the page.
        generator: The random stream of the sides.

    Raises:
        ValueError: If there are no pairs, two models of a pair are the same, or a picture or a
            question is not as ``Pair`` says.
        FileExistsError: If ``folder`` exists already.
    """
    if not len(pairs):
        raise ValueError("pairs must hold at least one pair, got none")
    for row, pair in enumerate(pairs):
        check_pair(row, pair)
    swapped = torch.randint(2, (len(pairs),), generator=generator).tolist()
    told, secret = zip(*map(side_by_side, pairs, map(bool, swapped)), strict=True)
    study = describe_study(title, pairs, told)
    number = hashlib.sha256(json.dumps(study).encode()).hexdigest()[:16]
    key = {"format": FORMAT, "study": number, "pairs": secret}
    template = (files("latent_ebm.evaluation") / "study.html").read_text(encoding="utf-8")
    content = json.dumps({"id": number, **study}).replace("<", "\\u003c")
    with atomic_folder(folder) as draft:
        (draft / PAGE).mkdir()
        page = template.replace("__STUDY__", content)
        (draft / PAGE / "index.html").write_text(page, encoding="utf-8")
        (draft / KEY).write_text(json.dumps(key, indent=1), encoding="utf-8")


def describe_study(title: str, pairs: Sequence[Pair], told: Sequence[object]) -> dict[str, object]:
    """All that the page knows, but for the number of the study."""
    asked = [
        {"name": name, "text": text, "prompt": name not in WITHOUT_PROMPT}
        for name, text in QUESTIONS.items()
    ]
    small = all(max(i.shape) <= SMALL for p in pairs for i in (p.first_image, p.second_image))
    return {"format": FORMAT, "title": title, "small": small, "questions": asked, "pairs": told}


def check_pair(row: int, pair: Pair) -> None:
    """Raise ``ValueError`` for a pair that cannot be compared."""
    check_kind("pairs", Pair, **{f"row {row}": pair})
    for what in ("prompt", "first", "second"):
        check_prompt(f"{what} of row {row}", getattr(pair, what))
    if pair.first == pair.second:
        raise ValueError(f"a pair must be of two models, but row {row} has {pair.first!r} twice")
    for image in (pair.first_image, pair.second_image):
        check_kind("pairs", Tensor, **{f"an image of row {row}": image})
        if image.ndim != 3 or len(image) not in (1, 3) or image.numel() == 0:
            raise ValueError(
                f"images must have shape (1 or 3, H, W), got {tuple(image.shape)} in row {row}"
            )
        if not bool((image.abs() <= 1).all()):
            raise ValueError(f"images must lie in [-1, 1], but row {row} has one that does not")
    unknown = [name for name in pair.questions if name not in QUESTIONS]
    if unknown or not pair.questions or len(set(pair.questions)) < len(pair.questions):
        raise ValueError(
            f"questions must be of {', '.join(QUESTIONS)}, each once, got {pair.questions!r} in "
            f"row {row}"
        )


def side_by_side(pair: Pair, swap: bool) -> tuple[dict[str, object], dict[str, object]]:
    """What the page knows of a pair, and what the key does."""
    images = [image_address(pair.first_image), image_address(pair.second_image)]
    models = [pair.first, pair.second]
    both = {"prompt": pair.prompt, "questions": pair.questions}
    told, secret = (
        dict(zip(SIDES, two[::-1] if swap else two, strict=True)) for two in (images, models)
    )
    return {**both, **told}, {**both, **secret}


def read_ratings(
    paths: Sequence[str | os.PathLike[str]], key: str | os.PathLike[str]
) -> list[Rating]:
    """The ratings in the files of several raters, with the names of the models.

    A rater need not have answered all questions. Take those of one question for ``rank``.

    Args:
        paths: The files that the page of the study has saved, one for each rater.
        key: The file ``key.json`` of the study.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged or of another study, or a rater or an answer is there
            twice.
    """
    secret = read_key(key)
    ratings, source = list[Rating](), dict[str, Path]()
    for path in map(Path, paths):
        found = read_file(path, secret)
        rater = found[0].rater
        if rater in source:
            raise ValueError(
                f"a rater must come once, but {rater!r} is in {source[rater]} and in {path}"
            )
        source[rater] = path
        ratings += found
    return ratings


def read_key(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The key of a study. Raises ``ValueError`` for what ``export_study`` does not write."""
    secret = read_json(path, "the key of a study")
    pairs = secret.get("pairs")
    if secret.get("format") != FORMAT or "study" not in secret or not isinstance(pairs, list):
        raise ValueError(f"{path} must be the key of a study, {KEY}, but it is not")
    for row, pair in enumerate(pairs):
        names = [pair.get(k) for k in (*SIDES, "prompt")] if isinstance(pair, dict) else []
        whole = names and all(isinstance(name, str) for name in names) and names[0] != names[1]
        if not whole or not isinstance(pair.get("questions"), list):
            raise ValueError(
                f"{path} is damaged: row {row} is no pair of two models, {pair!r:.100}"
            )
    return secret


def read_file(path: Path, secret: Mapping[str, Any]) -> list[Rating]:
    """The ratings of one rater, one at least."""
    content = read_json(path, "ratings")
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} must hold ratings of a study, but it does not")
    if content.get("study") != secret["study"]:
        raise ValueError(
            f"{path} must be of the study {secret['study']}, got {content.get('study')!r}"
        )
    rater, answers = content.get("rater"), content.get("answers")
    if not isinstance(rater, str) or not rater or not isinstance(answers, list) or not answers:
        raise ValueError(f"{path} must hold a rater and answers, but one is missing")
    ratings = [read_answer(path, rater, answer, secret["pairs"]) for answer in answers]
    asked = {(answer["pair"], answer["question"]) for answer in answers}
    if len(asked) < len(answers):
        raise ValueError(f"{path} must answer every question once, but one is there twice")
    return ratings


def read_answer(path: Path, rater: str, answer: object, pairs: Sequence[Any]) -> Rating:
    """One answer. Raises ``ValueError`` for what the page does not write."""
    given: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
    number, question, choice = given.get("pair"), given.get("question"), given.get("answer")
    pair: Mapping[str, Any] = {"questions": ()}
    if is_whole(number) and 0 <= number < len(pairs):
        pair = pairs[number]
    if not isinstance(question, str) or question not in pair["questions"]:
        raise ValueError(f"{path} is damaged: it answers what was not asked, {given}")
    if choice not in (*SIDES, INDIFFERENT):
        raise ValueError(
            f"{path} is damaged: an answer must be {', '.join(SIDES)} or {INDIFFERENT}, got "
            f"{choice!r}"
        )
    better = None if choice == INDIFFERENT else pair[choice]
    return Rating(pair["left"], pair["right"], better, rater, pair["prompt"], question)
