"""The section of the report on text to image, from stored results."""

from typing import Any

from experiments.claims import decide
from experiments.common import results, runs_of
from experiments.pictures import save_images, unpack
from experiments.tables import spread, table, together
from experiments.text_to_image.claims import EQUAL, few_steps, switched
from experiments.text_to_image.students import STUDENTS
from experiments.text_to_image.switches import SWITCHES, stem

Found = dict[str, Any]
NAMES = ("other R@1", "people R@1", "held out R@1", "held out R@5", "base", "gender", "tone")
FIGURE, OPEN_FIGURE, SCENES_FIGURE = (
    f"text_to_image-{name}" for name in ("names", "open", "scenes")
)
BARS = ("0.95", "-", "0.70", "0.90", "0.95", "0.88", "0.75")
OPEN = ("right", "coverage", "kl", "distance")
CHECKS = ("background", "number", "glyphs", "relation", "all")
INTRODUCTION = """## Text to image on emoji: `python -m experiments.text_to_image`

Pictures are judged by the nearest glyph (mean squared difference of pixels) among all 3,781 of the
pack's Twemoji, and for open captions among all 7,570 of two styles; a glyph that looks the same as
the right one counts as right. R@k is the share of names whose glyph is among the k nearest.
`regression` is the same network, which sees the text and pure noise. It draws the average of all
pictures that fit, and a diffusion model is worth something only where it does better."""
NAMED = """\
**Names.** 32x32 pixels, half an hour of one core. *Other* (things) and *people* are 300 names each
of glyphs that training showed, except 10 of the people: these columns measure what the model
remembers. *Held out* are two of the 18 compositions of gender and skin tone of each of 67
professions and activities, which training did not show; *base* (the profession or activity),
*gender* and *tone* are shares of these that have the right one. The row `regression` had 500 s,
less than a third of the time of the others, and has no guidance. The others start from it and had
1,300 s of diffusion more ({} updates); *guided* means with a weight of 1.5."""

SWITCHED = """\
**Changes of MobileDiffusion**, each alone in a plain network of 16x16 pixels. The row *all* has
all of them at once, except ReLU attention and what leaves out cross-attention. The *text map*
adds a linear map of the text to the first layer; it is no part of MobileDiffusion, and all
networks of the table have it unless it is said otherwise. Costs are those of one call of the
network for one picture, without the text encoder; *ms* are CPU milliseconds on one core, a
sixteenth of a call for 16 pictures. R@1 is that of 15 guided steps after 400 updates of regression
and 800 of diffusion, of 64 rows each. For the rows *tuned*, the plain network learns for 400
updates more, with ReLU attention or with softmax as before. The last row is the plain network
after its regression, in one step."""
OTHERS = {
    "plain, tuned with softmax": "tuned-softmax",
    "plain, tuned with relu": "tuned-relu",
    "plain, regression alone": "first-plain",
}
DECIDED = f"""\
Claims compare the mean R@1 over the three sorts of names, and *as good* means that it falls by
less than {-EQUAL:g}."""
OPEN_SHOWN = """\
Four pictures each of "food", "an animal", "a flag" and "a fox" by the first seed. All rows start
from the same noise, and students had equal time. From the top:"""
SCENES_SHOWN = """\
Test scenes of one to three glyphs, and beneath them what the first seed's model of one CPU core
draws for their captions in 50 guided steps. A caption that does not name the background leaves it
open."""
CONTESTANTS = {"torch": "PyTorch", "onnx": "ONNX Runtime", "browser": "page in Chromium"}
LATENCY = """\
**Time of a picture** of the base model, 32x32 pixels, in one step without guidance, from a text
that is encoded already. The first two are CPU times on one thread, medians of calls that take
turns; the last one is the mean that the page of `latent-ebm export --web` reports in headless
Chromium:"""
OPENED = """\
**Open captions**, 16x16 pixels, two styles; training shows all these captions. The 28 *kinds*
("food", "a flag") have many right answers, a few of them held out of training; 64 *names* without
their style have two. *Right*: the share of pictures whose nearest glyph is a right answer.
*Coverage*: the number of different right answers among 48 pictures of a kind, or 12 of a name,
over the number that uniform draws would give. *KL*: the divergence, in nats, of the nearest
glyphs' subgroups (of a kind) or styles (of a name) from those of the right answers, with half a
count added to each; uniform draws of right answers have 0.23 and 0.04. *Distance*: the root mean
squared difference from the nearest glyph. Speckle makes it larger and blur does not, so that a
blurred average may have the smallest one.

The regression had 300 s. The teacher starts from it, had 1,500 s more and is guided with a weight
of 1.5. Students start from the teacher and had another 300 s (equal time) or 300 updates, which
the rows of the teacher did not have. `progressive-8` draws in 8 steps, and `dmd` (distribution
matching) and `emd-K` (EM Distillation, with chains of K steps in training) in one; all three learn
from the guided teacher. `ufogen-1` and `ufogen-4` are one student without guidance, which draws in
1 or 4 steps. Progressive distillation learns 16 steps for 300 updates and then 8: its row of equal
updates has learnt 16 steps alone, and is drawn in 8 all the same. The claims are about kinds, and
about students at equal time."""
SCENES = """\
**Scenes** of 1 to 3 glyphs, of 159 animals and plants, on 8 backgrounds, as an exact parser reads
them. Training scenes are new in every epoch, and 150 test scenes of each number, drawn in the same
way, give the captions. Columns are shares of pictures with the right number of glyphs, the right
glyphs, and all that the caption tells. *Background* and *relation* are shares of those whose
caption tells them: a third tell a background, and 26 of two glyphs and 12 of three tell a
relation, which needs the right glyphs. Guidance is 1.5. The network on the GPU is larger, and its
batches have 256 scenes in place of 64. The regression has a sixth of the time of the others."""


def section() -> str:
    """All tables there are."""
    stored = results("text_to_image")
    parts = [base(stored), latencies(stored), switches(stored), openness(stored), scenes(stored)]
    return together(INTRODUCTION, *parts) if any(parts) else ""


def cells(runs: list[Found], keys: tuple[str, ...]) -> list[str]:
    return [spread(run.get(key) for run in runs) for key in keys]


def base(stored: Found) -> str:
    """How well names are drawn, seen ones and compositions that were held out."""
    kinds = {
        "regression": runs_of(stored, "regression"),
        "1 step, guided": runs_of(stored, "base", "-1"),
        "4 steps, guided": runs_of(stored, "base", "-4"),
        "15 steps": runs_of(stored, "base", "-unguided"),
        "15 steps, guided": runs_of(stored, "base", "-15"),
    }
    rows = [[name, *cells(runs, NAMES)] for name, runs in kinds.items() if runs]
    if not rows:
        return ""
    updates = spread(run["updates"] for run in kinds["15 steps, guided"])
    shown = stored.get("shown-0", {"grain": {}})
    if "samples" in shown:
        pictures = unpack(shown["samples"], (3, 32, 32))
        save_images(pictures, FIGURE, columns=12)
    grain = [f"{1e3 * shown['grain'].get(key, 0):.1f}" for key in ("glyphs", "4", "15")]
    return f"""\
{NAMED.format(updates)}

{table(["", *NAMES], [*rows, ["goal", *BARS]])}

{goals(kinds["15 steps, guided"])}

![Glyphs and drawings](figures/{FIGURE}.png)

Glyphs, and beneath each row of them what the first seed draws for their names in 4 guided steps:
things, people, and compositions that were held out. Of these pictures, the mean squared difference
from the median of 3x3 pixels, which speckle makes larger, is in 10^-3 {grain[0]} for the glyphs,
{grain[1]} after 4 steps and {grain[2]} after 15."""


def goals(runs: list[Found]) -> str:
    """Which goals are reached, by the rule for claims."""
    found = [
        f"{key} {decide([run[key] for run in runs], float(bar))}"
        for key, bar in zip(NAMES, BARS, strict=True)
        if bar != "-"
    ]
    return f"Claims that 15 guided steps exceed the goals: {', '.join(found)}."


def latencies(stored: Found) -> str:
    """Times of a picture of the base model."""
    run = stored.get("latency-1", {})
    times = [f"{title} {run[name]:.0f} ms" for name, title in CONTESTANTS.items() if name in run]
    return f"{LATENCY} {', '.join(times)}." if times else ""


def switches(stored: Found) -> str:
    """What each change of the network costs, saves and does to pictures."""
    costs, rows = stored.get("costs", {}), list[list[str]]()
    for name in SWITCHES:
        runs = runs_of(stored, f"switch-{stem(name)}")
        if name in costs:
            cost = costs[name]
            size = [f"{cost[key] / 1e6:.2f}" for key in ("parameters", "multiply-adds")]
            rows.append([name, *size, f"{cost['ms']:.2f}", *cells(runs, NAMES[:3])])
    others = {name: runs_of(stored, run) for name, run in OTHERS.items()}
    rows += [[name, *"---", *cells(runs, NAMES[:3])] for name, runs in others.items() if runs]
    head = ["", "parameters, 10^6", "multiply-adds, 10^6", "ms", *NAMES[:3]]
    saved = f"{savings(costs)} {DECIDED}" if costs else ""
    return together(SWITCHED, table(head, rows), saved, switched(stored)) if costs else ""


def picture(stored: Found, key: str, title: str, figure: str, side: int, rows: int) -> str:
    """The figure of the pictures under ``key``, in so many rows; nothing without them."""
    if key not in stored:
        return ""
    if "samples" in stored[key]:
        x = unpack(stored[key]["samples"], (3, side, side))
        save_images(x, figure, columns=len(x) // rows)
    return f"![{title}](figures/{figure}.png)"


def open_pictures(stored: Found) -> str:
    """A row of pictures per model, and what the rows and columns are."""
    models = stored.get("shown-open", {}).get("models", [])
    figure = picture(stored, "shown-open", "Open captions", OPEN_FIGURE, 16, len(models))
    names = "; ".join(name.replace(" 1 steps", " 1 step") for name in models)
    return f"{figure}\n\n{OPEN_SHOWN} {names}." if figure else ""


def scene_pictures(stored: Found) -> str:
    """Scenes, and what was drawn for their captions."""
    figure = picture(stored, "shown-scenes-cpu", "Scenes", SCENES_FIGURE, 32, 2)
    return f"{figure}\n\n{SCENES_SHOWN}" if figure else ""


def savings(costs: Found) -> str:
    """What the row of all changes saves."""
    plain, every = costs["plain"], costs["all"]
    saved = (
        f"{100 * (1 - every[key] / plain[key]):.0f} % of the {key}"
        for key in ("parameters", "multiply-adds")
    )
    return f"*All* saves {' and '.join(saved)}."


def openness(stored: Found) -> str:
    """How well captions are drawn that leave the picture open."""
    teachers = {
        f"teacher, {counted(steps)}": runs_of(stored, "open-base", f"-{steps}")
        for steps in (1, 2, 4, 8, 15, 50)
    }
    kinds = {"regression": runs_of(stored, "open-regression"), **teachers}
    for budget, text in (("seconds", "equal time"), ("updates", "equal updates")):
        for student in STUDENTS:
            for label in ("", "-1", "-4"):
                kinds[f"{student}{label}, {text}"] = runs_of(stored, f"{student}-{budget}", label)
    rows = [
        [name, spread(run["updates"] for run in runs), *cells(runs, tuple(columns()))]
        for name, runs in kinds.items()
        if runs
    ]
    if not rows:
        return ""
    measured = table(["", "updates", *columns().values()], rows)
    return together(OPENED, measured, few_steps(stored), open_pictures(stored))


def columns() -> dict[str, str]:
    """Headings of the metrics of open captions."""
    sorts = {"kinds": "kinds", "styles": "names"}
    return {f"{sort} {key}": f"{name}: {key}" for sort, name in sorts.items() for key in OPEN}


def scenes(stored: Found) -> str:
    """What scenes of one to three glyphs show."""
    rows: list[list[str]] = []
    for device in ("cpu", "cuda"):
        regressions = runs_of(stored, f"scene-regression-{device}", "-1")
        rows += scene_rows(regressions, "regression")
        for steps in (1, 8, 50):
            rows += scene_rows(runs_of(stored, f"scenes-{device}", f"-{steps}"), counted(steps))
    if not rows:
        return ""
    measured = table(["", "glyphs asked for", *CHECKS], rows)
    return together(SCENES, measured, best_scenes(stored), scene_pictures(stored))


def scene_rows(runs: list[Found], how: str) -> list[list[str]]:
    """A row per number of glyphs that was asked for."""
    if not runs:
        return []
    where = f"{runs[0]['device']}, {runs[0]['seconds']:.0f} s, {how}"
    return [[where, num, *cells([run[num] for run in runs], CHECKS)] for num in "123"]


def best_scenes(stored: Found) -> str:
    """The largest share of pictures that are right as a whole, by the number of glyphs."""
    runs = [run for key, run in stored.items() if key.startswith(("scenes-cpu-", "scenes-cuda-"))]
    best = {num: max(run[num]["all"] for run in runs) for num in ("1", "2", "3")}
    shares = ", ".join(f"{100 * share:.0f} % of {num}" for num, share in best.items())
    return f"Scenes that are right as a whole, in the best of all rows and seeds: {shares} glyphs."


def counted(steps: int) -> str:
    """The number of steps in words."""
    return f"{steps} step{'s' if steps > 1 else ''}"
