"""All tests that apply to a device: ``python -m experiments.gpu.check``

Runs the tests of the samplers, models, rules and distillers with tensors on the device, then one
step of each against float64 on the CPU, in half precision and in deterministic mode, and writes
down how many passed, on which card.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import torch

from experiments.common import OUTPUTS, write_json
from experiments.gpu.speed import card

MODELS = (
    "denoisers denoising denoising_networks diffusion_gan distillation guidance kernels learning"
)
MORE = "likelihoods metrics model networks objectives posteriors priors self_adversarial"
LAST = "self_supervised stages ufogen_progressive autoencoders conditional_rules"
TEXT = "distilled_guidance mobile_unet students text text_image_contrast text_to_image"
SUBJECTS = "alignment attention_maps inversion_guidance replacement selection subject_conditioner"
SHOWN = "subject_inpainting subject_tuning subject_unet supervised_contrast"
TESTS = (
    "tests/test_devices.py",
    "tests/test_default_device.py",
    "tests/samplers",
    *(
        f"tests/latent_ebm/test_{name}.py"
        for name in f"{MODELS} {MORE} {LAST} {TEXT} {SUBJECTS} {SHOWN}".split()
    ),
)


def count(report: Path) -> dict[str, float | list[str]]:
    """Numbers of a JUnit report, and the names of the tests that failed."""
    suite = ElementTree.parse(report).getroot()[0]
    bad = [
        case
        for case in suite
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = int(suite.get("skipped", 0))
    return {
        "passed": int(suite.get("tests", 0)) - len(bad) - skipped,
        "failed": len(bad),
        "skipped": skipped,
        "seconds": float(suite.get("time", 0)),
        "names": [f"{case.get('classname')}::{case.get('name')}" for case in bad],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="device (default: cuda)")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes, with pytest-xdist (default: one)"
    )
    parser.add_argument(
        "--out", type=Path, default=OUTPUTS / "gpu" / "check.json", help="file to write"
    )
    parser.add_argument("tests", nargs="*", default=TESTS, help="files or folders of tests")
    args = parser.parse_args()
    torch.set_default_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # other versions of the libraries than the pinned ones warn of other things
        options = ["--device", args.device, f"--junitxml={report}", "-W", "default", "--tb=short"]
        workers = ["-n", str(args.workers)] if args.workers else []
        environment = {
            **os.environ,
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        }  # for deterministic mode
        command = [sys.executable, "-m", "pytest", *options, *workers, *args.tests]
        status = subprocess.run(command, env=environment, check=False).returncode
        found = {"card": card(args.device), **count(report)}
    write_json(args.out, {"config": found["card"], "result": found})
    print(json.dumps(found, indent=1), flush=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
