"""ONNX Runtime Web, which evaluates ONNX files in a browser: two files of its npm package, of one
version that is known by its hashes, and its licence.

The package is no part of this library. It is read from a folder or fetched by npm when a page is
written.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from latent_ebm.foreign import check_file

PACKAGE = "onnxruntime-web@1.30.0"
FILES = {  # of the package, and their SHA-256
    "dist/ort.wasm.bundle.min.mjs": (
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"
    ),
    "dist/ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
NOTICES = ("LICENSE", "ThirdPartyNotices.txt")  # the package of npm lacks them, that of Python not
QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock")
PATIENCE = 300  # seconds that npm may take


def write_runtime(folder: Path, source: str | os.PathLike[str] | None = None) -> None:
    """Write the files and licences of the runtime to a new ``folder``.

    ``source`` is the folder of the npm package; None: npm fetches it. Raises ``ValueError`` for
    another package, ``FileNotFoundError`` for a file that is missing, ``RuntimeError`` if npm does
    not fetch it, and ``ImportError`` without the Python package, which holds the licences.
    """
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise ImportError(
            'onnxruntime must be installed to write a page: pip install "latent-ebm[onnx]"'
        )
    folder.mkdir()
    for name in NOTICES:
        shutil.copyfile(Path(spec.origin).with_name(name), folder / name)
    with tempfile.TemporaryDirectory() as scratch:
        package = fetch_package(Path(scratch)) if source is None else Path(source).expanduser()
        for name, known in FILES.items():
            content = check_file(package / name, f"a file of {PACKAGE}").read_bytes()
            if hashlib.sha256(content).hexdigest() != known:
                raise ValueError(f"{package / name} must be that of {PACKAGE}, got another file")
            (folder / Path(name).name).write_bytes(content)


def fetch_package(folder: Path) -> Path:
    """The package, installed by npm into ``folder``. Raises ``RuntimeError`` if that fails."""
    npm = shutil.which("npm")
    advice = (
        f"run `npm install {PACKAGE}` where there is a network, and name the folder "
        "node_modules/onnxruntime-web with --runtime"
    )
    if npm is None:
        raise RuntimeError(f"npm must be installed to fetch {PACKAGE}; or else {advice}")
    command = [npm, "install", PACKAGE, "--prefix", str(folder), *QUIET]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.SubprocessError as error:
        lines = (getattr(error, "stderr", None) or str(error)).splitlines()
        raise RuntimeError(f"npm cannot fetch {PACKAGE} ({lines[0]}): {advice}") from error
    return folder / "node_modules" / "onnxruntime-web"
