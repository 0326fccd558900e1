"""``latent-ebm export``: what a checkpoint has trained, without the training."""

import argparse

from latent_ebm.cli.commands.options import Commands, add_checkpoint_command, positive


def add(commands: Commands) -> None:
    text = "write what a checkpoint has trained, for latent_ebm.load or for other programs"
    more = (
        "A page (--web) shows a prompt box and draws in the browser. Its model has at most 8 "
        "steps, words as tokens, and no guidance unless the denoiser has learnt it; CKPT may also "
        "be the folder of a TextToImage. Serve the page with `python -m "
        "http.server -d DIR`, since browsers do not open it as a file. It needs the extra onnx."
    )
    command = add_checkpoint_command(commands, "export", text, more)
    target = command.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--out",
        metavar="PATH",
        help="a new folder, which latent_ebm.load reads; or a file .onnx for a one-step student, "
        "which maps noise z to x, for programs that do not have this library",
    )
    target.add_argument(
        "--web",
        metavar="DIR",
        help="a new folder for a static page that draws pictures for prompts by a text-to-image "
        "model; it loads nothing from elsewhere",
    )
    command.add_argument(
        "--diffusers",
        action="store_true",
        help="write the folder of --out for the library diffusers; for diffusion models whose "
        "network is one of diffusers. A text-to-image model becomes a whole pipeline, and CKPT "
        "may be its folder",
    )
    add_page_options(command)
    command.set_defaults(run=run)


def add_page_options(command: argparse.ArgumentParser) -> None:
    """Options that go with --web alone."""
    command.add_argument(
        "--steps",
        type=positive,
        help="with --web: number of steps of the sampler, at most 8 (default: that of the model)",
    )
    command.add_argument(
        "--guidance",
        type=float,
        metavar="W",
        help="with --web: weight of guidance, for a denoiser that has learnt a range of weights "
        "(default: that of the model)",
    )
    command.add_argument(
        "--runtime",
        metavar="DIR",
        help="with --web: the unpacked npm package onnxruntime-web 1.30.0 (default: npm fetches "
        "it)",
    )


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.export import run_export

    run_export(args)
