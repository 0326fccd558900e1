"""How the command line ends: one sentence that says what is wrong, or where a foreign error
arose.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from latent_ebm.cli import inference, main
from latent_ebm.cli.errors import MAX_TEXT, report
from samplers.run_checks import check_finite


def nested(depth: int) -> int:
    return nested(depth + 1)


def fail(text: str) -> None:
    raise RuntimeError(text)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: {}["curve"], "curve (KeyError in "),
        (lambda: math.sqrt(-1), "(ValueError in "),
        (lambda: nested(0), "maximum recursion depth exceeded (RecursionError in "),
        (lambda: torch.empty(2**55), "not enough memory for "),
        (lambda: np.empty(2**58), "not enough memory for "),
        (lambda: torch.ones(2) @ torch.ones(3), "(RuntimeError in "),
        (lambda: fail("x" * 10**6), "xx ... (RuntimeError in "),
        (lambda: fail("a\x1b[31mb"), "a\\x1b[31mb (RuntimeError in "),
    ],
    ids=["key", "domain", "recursion", "allocator", "numpy", "shapes", "long", "colour"],
)
def test_foreign_errors_say_where_they_arose(
    act: Callable[[], object],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(inference, "load_rule", lambda *_: act())
    assert main(["sample", "x.ckpt", "--out", str(tmp_path / "x.npz")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("latent-ebm: error: ")
    assert said in line
    assert len(line) < MAX_TEXT + 120
    assert line.endswith("in latent_ebm.cli.inference.sample; --debug shows the traceback)")
    assert not list(tmp_path.iterdir())


def test_own_errors_speak_for_themselves(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def end(act: Callable[[], object]) -> str:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            act()
        assert report(caught.value) == 1
        return capsys.readouterr().err

    said = end(lambda: check_finite("x", torch.tensor([[math.nan]])))
    assert said == "latent-ebm: error: x must be finite: 1 of 1 are not\n"
    said = end(lambda: (tmp_path / "none.txt").read_text())
    assert "none.txt" in said
    assert "--debug" not in said
