"""The sub-commands that are not Lightning's. Each takes the parsed arguments and prints where its
result lies.

A command imports what it needs when it runs: ``detect`` scores without Lightning.
"""

import argparse


def demo(args: argparse.Namespace) -> None:
    """``latent-ebm demo``: three priors side by side."""
    from latent_ebm.cli.demo import run_demo
    from latent_ebm.cli.files import check_folder

    run_demo(check_folder(args.out), args.epochs, args.seed)


def sample(args: argparse.Namespace) -> None:
    """``latent-ebm sample``: what the model generates."""
    from latent_ebm.cli.inference import run_sample

    run_sample(args)


def score(args: argparse.Namespace) -> None:
    """``latent-ebm score``: the energy terms of data at inferred latents."""
    from latent_ebm.cli.inference import run_score

    run_score(args)


def evaluate(args: argparse.Namespace) -> None:
    """``latent-ebm evaluate``: held-out figures."""
    from latent_ebm.cli.inference import run_evaluate

    run_evaluate(args)


def export(args: argparse.Namespace) -> None:
    """``latent-ebm export``: a trained network for other programs."""
    from latent_ebm.cli.export import run_export

    run_export(args)


def detect(args: argparse.Namespace) -> None:
    """``latent-ebm detect``: unusual rows among new ones, from normal ones to begin with."""
    from latent_ebm.cli.detect import run_detect

    run_detect(args)


def recipes(args: argparse.Namespace) -> None:
    """``latent-ebm recipes``: the YAML files that come with the library."""
    from latent_ebm.cli.recipes import list_recipes

    print(list_recipes())


def recipe(args: argparse.Namespace) -> None:
    """``latent-ebm recipe``: one of these files."""
    from latent_ebm.cli.recipes import read_recipe

    print(read_recipe(args.name), end="")
