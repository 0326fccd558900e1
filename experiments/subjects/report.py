"""The section of the report on subjects, from stored results."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.claims import by_seed, decided
from experiments.common import of_seeds, results, runs_of
from experiments.pictures import save, save_images, unpack
from experiments.subjects import claims
from experiments.subjects.editing import ANEW, INVERTED, KEPT, STEPS, WEIGHT
from experiments.subjects.inpainting import KEYS, NUM, START, SWEEP
from experiments.subjects.judging import COPIED, GUIDANCE
from experiments.subjects.tuning import (
    ALL_WEIGHTS,
    GROUNDS,
    PHOTOS,
    REFINING,
    ROWS,
    ROWS_ALONE,
    SUBJECTS,
    WORD,
)
from experiments.subjects.tuning import STEPS as UPDATES
from experiments.tables import spread, table, together, with_missing

Found = dict[str, Any]
FIRST = f"base-0{START}"  # the model that inpainting starts from
PICTURES = 2 * GROUNDS * SUBJECTS  # of a way of tuning
SAMPLES, CURVE = "subjects-inpainting", "subjects-tokens"
TUNED_FIGURE, REPLACED = "subjects-tuning", "subjects-replacing"
IN_PLACE = """\
From above: pictures, the subjects that are put there, and what is drawn: with the attention maps
of the picture, with maps of its own, and anew."""
LOST = """\
Of the pictures that are drawn anew, {share:.2f} have the asked background. The others lost it to
the learned rows, not to the replacement."""
EDITED = ("identity", "R@1", "old", "pose", "background", "change")
SHOWN = """\
Two subjects: in the top row their photos, and below, in the order of the table, what is drawn for
"upright" on two other backgrounds and for "upside down"."""
BASE_KEYS = ("identity", "R@1", "pose", "background")
FILLED = (
    "same R@1",
    "turned R@1",
    "turned identity",
    "turned pose",
    "turned copied",
    "shape pose",
)
TUNED = ("identity", "R@1", "pose", "background", "leak", "copied", "seconds", "numbers")
INTRODUCTION = f"""## Subjects on emoji: `python -m experiments.subjects`

A subject is one glyph of 24 pixels, upright or upside down, in the middle of a picture of 32x32
pixels. 48 of 857 subjects are held out of the training of the text-to-image model, and the tables
are about these unless it is said otherwise. Pictures are read by exact templates. *Identity* is
the correlation with the asked subject, in the quarter turn in which it is largest, and *R@1* the
share of pictures in which no other held-out subject has a larger one. *Pose* is the share whose
correlation is largest in the asked pose, of subjects that look different in all quarter turns: a
model that does not heed the pose reaches 0.50 at most. *Copied* is the share whose correlation
with the reference, in the reference's pose, exceeds {COPIED} although another pose was asked for.
All models, of all seeds, start from one text-to-image model, unless it is said otherwise."""
FILLING = f"""\
**Inpainting with a reference** (DreamInpainter, arXiv:2312.03771). A box is cut out of a picture
and filled by a network that is told the kind of thing, a pose and the background in words, and is
shown tokens of a reference: all 64 of the second resolution, {NUM} of them, their mean, or none.
*Same*: the reference has the asked pose; *turned*: another one, which training never shows;
*shape*: the hole is the turned subject's own outline, and the text the kind of thing alone.
Outside of the hole, pictures stay as they were given. All selections are of one network, which
learns with one of them in every batch, by chance. A second network, `coupled`, learns without the
loss of whole pictures by their captions. The claims on identity are about R@1."""
FROM = """\
Both start from a training of the text-to-image model of {updates} updates, which reaches an
R@1 of {found:.2f} by name."""
INVERTED_BY = """\
Pictures are inverted by the training of {updates} updates that inpainting starts from."""
REPLACED_BY = """\
Subjects are put in the place of others by the same model after {updates} updates more, with which
it reaches an R@1 of {found:.2f} by name."""
TUNING = f"""\
**A subject learned from {PHOTOS} pictures** (HiFi Tuner, arXiv:2312.00079). The {PHOTOS} are
the same picture: the subject upright in the middle of one background. It is asked for in both
poses on three other backgrounds; means over {SUBJECTS} subjects, {PICTURES} pictures a seed. What
is learned are {ROWS} *rows*: vectors beside those of the prompt's words. From *rows* to
*+ reference*, each line of the table adds to the one before:

- *+ mask*: only pixels of the subject count in the loss, by its exact outline;
- *+ regularisation* holds the rows near where they start;
- *+ step-wise*: each step of the sampler has rows of its own, learned in {REFINING} more updates
  each after the {UPDATES} that all others have;
- *+ reference* does not learn more. It draws again, led by a photo, where the exact templates find
  a subject. These templates also judge the result, so that it knows more than the others.

*DreamBooth* (arXiv:2208.12242) learns all weights beside the rows, without its loss on other
pictures of the class; regularisation holds its rows alone. *Leak* is the share of pictures on the
background of the photos, *seconds* are those of learning, and *numbers* says how many are stored
for a subject. *Textual inversion* (arXiv:2208.01618) learns the embedding of the class word in
place of rows."""

EDITING = f"""\
**A subject in the place of another** (HiFi Tuner). {INVERTED} pictures of subjects that the model
knows are inverted and drawn again by their names, without guidance or with a weight of {WEIGHT}:
root mean squared errors, of pixels in [-1, 1]. *Trained nulls* (arXiv:2211.09794) are empty
prompts that are trained for each picture and step, so that guided sampling returns the picture.
Then each of {SUBJECTS} subjects, learned as in *+ step-wise*, is put in the place of another one
in six pictures, whose captions name kind, pose and background: with the attention maps of the
picture in all steps (*maps kept*), or in none, or *drawn anew* from other noise, without the
picture. Guidance is {GUIDANCE}. *Old*: the share in which the other subject has the larger
correlation. *Change*: the root mean squared difference from the picture, outside of both
subjects."""


def section() -> str:
    """All tables there are."""
    stored = results("subjects")
    parts = {
        "the text-to-image model": base(stored),
        "inpainting with a reference": filled(stored),
        "a subject of a few pictures": tuned(stored),
        "a subject in the place of another": edited(stored),
    }
    return with_missing(INTRODUCTION, parts)


def base(stored: Found) -> str:
    """What the text-to-image model draws by name."""
    run = stored.get("base-0")
    if run is None:
        return ""
    shares = ", ".join(f"{key} {run[key]:.2f}" for key in BASE_KEYS)
    return f"""\
**The text-to-image model** starts from a regression of 500 s, and took {run["seconds"]:.0f} s and
{run["updates"]} updates of 64 rows more. Asked by name for subjects that it was trained on, with
R@1 among these, it reaches: {shares}."""


def filled(stored: Found) -> str:
    """What each selection of tokens does."""
    runs = {name: list(of_seeds(stored, key).values()) for name, key in KEYS.items()}
    rows = [
        [name, *(spread((run[key] for run in found), 2) for key in FILLED)]
        for name, found in runs.items()
        if found
    ]
    if not rows:
        return ""
    parts = [FILLING + beginning(stored, FIRST, FROM), table(["tokens", *FILLED], rows)]
    if "samples" in stored.get("shown-0", {}):
        x = unpack(stored["shown-0"]["samples"], (3, 32, 32))
        save_images(x, SAMPLES, columns=len(x) // 6)
    if "shown-0" in stored:
        captions = "; ".join(stored["shown-0"]["captions"])
        parts.append(f"![References, holes and pictures](figures/{SAMPLES}.png)")
        parts.append(
            "From above: references, pictures with their hole, and what the first seed fills in: "
            f"with no tokens, their mean, {NUM} selected ones, and all. Asked for: {captions}."
        )
    arms = by_seed(stored, KEYS)
    if arms:
        parts.append(decided(claims.FILLED, arms))
    if curve(runs):
        parts.append(f"![Tokens](figures/{CURVE}.png)")
    return "\n\n".join(parts)


def beginning(stored: Found, name: str, told: str) -> str:
    """``told``, on lines of its own, with the updates and the R@1 of the model ``name``; nothing
    if that was not judged.
    """
    run = stored.get(name)
    if run is None:
        return ""
    return "\n" + told.format(updates=run["updates"], found=run["R@1"])


def curve(runs: dict[str, list[Found]]) -> bool:
    """Draw identity and obedience by the number of tokens, where all of them are there."""
    names = {**{num: f"selected {num}" for num in SWEEP}, NUM: "selected", 64: "all"}
    if not all(runs[name] for name in names.values()):
        return False
    figure, axis = plt.subplots(figsize=(5, 3))
    for key in ("turned R@1", "turned pose", "turned copied"):
        points = [[run[key] for run in runs[name]] for _, name in sorted(names.items())]
        mean, deviation = (np.array([f(p) for p in points]) for f in (np.mean, np.std))
        axis.errorbar(sorted(names), mean, deviation, label=key, capsize=2)
    axis.set(xscale="log", xlabel="tokens of 64", ylabel="share of pictures")
    axis.set_xticks(sorted(names), list(map(str, sorted(names))))
    axis.minorticks_off()
    axis.legend()
    save(figure, CURVE)
    plt.close(figure)
    return True


def tuned(stored: Found) -> str:
    """What each way of tuning does."""
    runs = runs_of(stored, "tuning")
    if not runs:
        return ""
    names = ("class word alone", *ROWS_ALONE, "+ reference", WORD, *ALL_WEIGHTS)
    rows = [
        [name, *(spread((run[name].get(key) for run in runs), 2) for key in TUNED)]
        for name in names
        if all(name in run for run in runs)
    ]
    found = [costs(runs), decided(claims.TUNED, runs), *shown_tuning(stored)]
    return together(TUNING, table(["", *TUNED], rows), *found)


def costs(runs: list[Found]) -> str:
    """What a picture with a reference costs, and how well poses are obeyed."""
    seconds = spread((run["+ reference"].get("seconds a picture") for run in runs), 2)
    pose = max(float(np.mean([run[name]["pose"] for run in runs])) for name in runs[0])
    return f"""\
With *+ reference*, a picture takes {seconds} s to draw. The largest share in the asked pose is
{pose:.2f}; a model that does not heed the pose reaches 0.50."""


def shown_tuning(stored: Found) -> list[str]:
    """The figure of what each way of tuning draws, and what its rows are."""
    shown = stored.get("shown-tuning", {})
    if "samples" in shown:
        x = unpack(shown["samples"], (3, 32, 32)).unflatten(0, (1 + len(shown["ways"]), -1))[
            :, ::2
        ]
        save_images(x.flatten(0, 1), TUNED_FIGURE, columns=x.shape[1])
    return [f"![Ways of tuning](figures/{TUNED_FIGURE}.png)\n\n{SHOWN}"] if shown else []


def edited(stored: Found) -> str:
    """What inversion returns, and what stands in the place of another subject."""
    again, replaced = runs_of(stored, "inverted"), runs_of(stored, "replaced")
    if not (again and replaced):
        return ""
    columns = [f"{num} steps" for num in STEPS]
    errors = [
        [name, *(spread((run[name][key] for run in again), 3) for key in columns)]
        for name in again[0]
    ]
    rows = [
        [name, *(spread((run[name][key] for run in replaced), 2) for key in EDITED)]
        for name in (*KEPT, ANEW)
    ]
    parts = [
        EDITING
        + beginning(stored, FIRST, INVERTED_BY)
        + beginning(stored, "longer-0", REPLACED_BY),
        table(["error", *columns], errors),
        decided(claims.INVERTED, again),
        table(["", *EDITED], rows),
        LOST.format(share=np.mean([run[ANEW]["background"] for run in replaced])),
        decided(claims.REPLACED, replaced),
    ]
    if "samples" in replaced[0]:
        x = unpack(replaced[0]["samples"], (3, 32, 32))
        save_images(x, REPLACED, columns=len(x) // (3 + len(KEPT)))
    return "\n\n".join([*parts, f"![Other subjects](figures/{REPLACED}.png)\n\n{IN_PLACE}"])
