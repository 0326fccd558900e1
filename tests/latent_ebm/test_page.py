"""The page draws in a browser what the model draws, asks nobody else, and says what it refuses."""

import json
import unicodedata
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch

from latent_ebm.applications import TextToImage
from latent_ebm.cli import main
from latent_ebm.export import export_page, runtime
from latent_ebm.text.tokenizer import split_words
from samplers import Renoising
from tests.browser import CHROMIUM, Browser, served

from .drawing import NOISE, noise_of, seeded, tiny_model

LEVELS = 1  # of 255 by which a pixel may differ


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return tiny_model(Renoising(NOISE, 1), autoencoder=True).eval()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that the command line wrote for fewer steps than the folder says, without guidance,
    with the runtime that npm fetches.
    """
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs the extra onnx")
    folder = tmp_path_factory.mktemp("page")
    slow = tiny_model(Renoising(NOISE, 50), autoencoder=True, guidance=2.0)
    slow.save(folder / "model")
    options = ["--web", str(folder / "site"), "--steps", "1", "--guidance", "1"]
    with redirect_stderr(StringIO()) as told:
        code = main(["export", str(folder / "model"), *options])
    if code == 1 and "error: npm" in told.getvalue():
        pytest.skip(f"needs the runtime: {told.getvalue()}")
    assert code == 0, told.getvalue()
    return folder / "site"


@pytest.fixture(scope="module")
def browser(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that shows the page, ready to draw."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with served(site) as address:
        browser = Browser(tmp_path_factory.mktemp("profile"))
        try:
            browser.send("Network.enable")
            browser.send("Page.navigate", url=address)
            browser.until("document.readyState == 'complete'")
            browser.evaluate("import('./page.js').then(() => 0)")
            yield browser
        finally:
            browser.close()


def draw(browser: Browser, prompt: str, number: int = 1) -> str:
    """Draw ``prompt`` as a person does; the message when it is done."""
    browser.write("#prompt", prompt)
    browser.write("#number", str(number))
    browser.click("#draw")
    browser.until("!document.querySelector('#draw').disabled")
    return browser.evaluate("document.querySelector('#message').textContent")


def pictures(browser: Browser) -> np.ndarray:
    """The pixels (n, H, W, 4) of the pictures on the page, 0 to 255."""
    pixels = browser.evaluate(
        "[...document.querySelectorAll('canvas')].map((canvas) => [...canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data])"
    )
    return np.array(pixels, dtype=np.uint8).reshape(-1, 8, 8, 4)


def test_the_browser_draws_what_the_model_draws(browser: Browser, model: TextToImage) -> None:
    rows = json.dumps(noise_of(model, 3).flatten(1).tolist())
    browser.evaluate(
        f"(async (rows) => {{ const {{ hooks }} = await import('./page.js'), own = hooks.noise;"
        " hooks.noise = () => Float32Array.from(rows.shift());"
        f" hooks.restore = () => {{ hooks.noise = own; }} }})({rows})"
    )
    message = draw(browser, "Blue  STRAßE, ★", number=3)
    browser.evaluate("import('./page.js').then(({ hooks }) => hooks.restore())")
    assert message.startswith("3 of 3 pictures, ")
    expected = model.generate(["blue strasse ★"], 3, generator=seeded())
    levels = (127.5 * (1 + expected.permute(0, 2, 3, 1))).round().numpy()
    found = pictures(browser)
    assert levels.std() > 20
    assert np.abs(found[..., :3] - levels).max() <= LEVELS
    assert (found[..., 3] == 255).all()


def test_a_seed_draws_the_same_again_and_another_one_does_not(browser: Browser) -> None:
    draw(browser, "red", number=3)
    first = pictures(browser)
    assert len(first) == len(np.unique(first, axis=0)) == 3
    browser.write("#seed", "1")
    draw(browser, "red", number=2)
    assert np.array_equal(pictures(browser), first[1:])


def test_noise_is_standard_normal(browser: Browser) -> None:
    noise = np.array(
        browser.evaluate(
            "import('./page.js').then(({hooks}) => "
            "[1, 2, 3].map((seed) => [...hooks.noise(seed, 40000)]))"
        )
    )
    assert np.abs(noise.mean(1)).max() < 4 / 200
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 4 / 200
    ranks = np.sort(noise[0])
    exact = torch.special.ndtr(torch.from_numpy(ranks)).numpy()
    assert np.abs(exact - np.arange(0.5, 40000) / 40000).max() < 1.7 / 200  # Kolmogorov-Smirnov


REFUSED = [
    ("red zebra okapi", "Words that the model does not know: zebra, okapi."),
    ("red red green blue", "The prompt must have at most 3 words, but it has 4."),
    ("!?", "The prompt must hold a word or be empty."),
    ("red\x07", "The prompt must hold no control characters."),
]


@pytest.mark.parametrize(("prompt", "message"), REFUSED)
def test_what_cannot_be_drawn_is_told(browser: Browser, prompt: str, message: str) -> None:
    assert draw(browser, prompt) == message
    assert browser.evaluate("document.querySelector('#message').className") == "error"
    assert len(pictures(browser)) == 0
    assert draw(browser, "").startswith("1 of 1 pictures")
    assert browser.evaluate("document.querySelector('#message').className") == ""


HARD = ["ΑΣ ΣΑΣ", "İstanbul ısı", "ﬁve ①②", "e\u0301 \u00e9", "👩‍🚀 in space", "can't", "x+y=z"]
BLOCKS = [(0, 0xD800), (0xE000, 0x12000), (0x16000, 0x17000), (0x1A000, 0x20000)]


def test_words_are_those_of_the_tokenizer(browser: Browser) -> None:
    """Every tenth ideograph and every other character of the first two planes that the browser
    knows, between two letters.
    """
    codes = [
        i for block in BLOCKS for i in range(*block) if not 0x3400 < i < 0xD7A4 or i % 10 == 0
    ]
    texts = HARD + [f"a{chr(i)}b" for i in codes if unicodedata.category(chr(i)) != "Cn"]
    found = browser.evaluate(
        "import('./page.js').then((page) => "
        f"{json.dumps(texts)}.map((text) => /\\p{{Cn}}/u.test(text) ? 0 : page.splitWords(text)))"
    )
    known = [(text, words) for text, words in zip(texts, found, strict=True) if words != 0]
    assert len(known) > 0.95 * len(texts) > 30_000
    different = [text for text, words in known if words != split_words(text)]
    assert not different, list(map(ascii, different[:10]))


def test_all_comes_from_the_folder(browser: Browser, site: Path) -> None:
    addresses = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert len(addresses) == 7
    assert {address.split("/")[2] for address in addresses} == {addresses[0].split("/")[2]}
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    asked = {address.split("/", 3)[3] or "index.html" for address in addresses}
    assert names - asked == {f"ort/{name}" for name in runtime.NOTICES}
    assert (site / "ort" / "LICENSE").read_text().startswith("MIT License\n\nCopyright (c) Micro")


def test_requests_elsewhere_are_blocked(browser: Browser) -> None:
    found = browser.evaluate(
        "Promise.race([new Promise((resolve) => document.addEventListener("
        "'securitypolicyviolation', (event) => resolve(event.effectiveDirective))),"
        " fetch('http://127.0.0.1:9/').catch(() => new Promise((resolve) => "
        "setTimeout(resolve, 1000, 'sent')))])"
    )
    assert found == "connect-src"


def test_a_model_that_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="guidance must be 1"):
        export_page(tiny_model(guidance=2.0), tmp_path / "site")
    two = tiny_model()
    two.shape = (2, 8, 8)
    with pytest.raises(ValueError, match=r"1 or 3 channels to be shown, got \(2, 8, 8\)"):
        export_page(two, tmp_path / "site")
    assert not list(tmp_path.iterdir())


def test_another_runtime_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    site, package = tmp_path / "site", tmp_path / "package"
    with pytest.raises(FileNotFoundError, match=r"a file of onnxruntime-web@1.30.0"):
        export_page(tiny_model(), site, package)
    (package / "dist").mkdir(parents=True)
    for name in runtime.FILES:
        (package / name).write_text("of another version")
    with pytest.raises(ValueError, match=r"must be that of onnxruntime-web@1.30.0"):
        export_page(tiny_model(), site, package)
    assert list(tmp_path.iterdir()) == [package]


def test_without_npm_or_network_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\necho more >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    advice = "run `npm install onnxruntime-web@1.30.0` where there is a network, .* --runtime$"
    with pytest.raises(RuntimeError, match=rf"npm cannot fetch .* \(npm error .*\): {advice}"):
        export_page(tiny_model(), tmp_path / "site")
    npm.unlink()
    with pytest.raises(RuntimeError, match=f"npm must be installed .*{advice}"):
        export_page(tiny_model(), tmp_path / "site")
    assert not list(tmp_path.iterdir())


USAGE = [
    (["--out", "model", "--runtime", "package"], 1, "--runtime must come with --web"),
    (["--out", "model", "--steps", "2"], 1, "--steps must come with --web"),
    (["--web", "site", "--diffusers"], 1, "--diffusers must come with --out"),
    (["--web", "."], 1, "--web must be a new folder"),
    (["--web", "site"], 1, "nothing.ckpt"),
    ([], 2, "one of the arguments --out --web is required"),
    (["--web", "site", "--out", "model"], 2, "not allowed with argument"),
]


@pytest.mark.parametrize(("options", "code", "words"), USAGE)
def test_wrong_usage(
    options: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "nothing.ckpt", *options]) == code
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
