"""``latent-ebm recipes`` and ``latent-ebm recipe``: the YAML files that come with the library."""

import argparse

from latent_ebm.cli.commands.options import Commands, add_command


def add(commands: Commands) -> None:
    text = "list the recipes: YAML files that come with the library"
    add_command(commands, "recipes", text).set_defaults(run=show_list)
    command = add_command(commands, "recipe", "print a recipe, to run it or to change it")
    command.add_argument(
        "name",
        metavar="NAME",
        help="its name as `latent-ebm recipes` lists it, such as digits/ratio",
    )
    command.set_defaults(run=show)


def show_list(args: argparse.Namespace) -> None:
    from latent_ebm.cli.recipes import list_recipes

    print(list_recipes())


def show(args: argparse.Namespace) -> None:
    from latent_ebm.cli.recipes import read_recipe

    print(read_recipe(args.name), end="")
