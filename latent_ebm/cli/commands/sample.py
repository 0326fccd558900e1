"""``latent-ebm sample``: what a trained model generates."""

import argparse

from latent_ebm.cli.commands.options import Commands, add_checkpoint_command, positive


def add(commands: Commands) -> None:
    more = (
        "A folder that latent-ebm export wrote of a latent model may stand in place of CKPT. It "
        "holds no data module: its samples x have the units of the model, in which the columns of "
        "a table are standardised, and no class is asked for. With --prompt, CKPT may be the "
        "folder of a text-to-image model, or of a Stable Diffusion pipeline of diffusers."
    )
    command = add_checkpoint_command(commands, "sample", "draw samples from a trained model", more)
    command.add_argument(
        "--num",
        type=positive,
        help="number of samples (default: 64), or of images per prompt (default: 4)",
    )
    command.add_argument(
        "--steps",
        type=positive,
        help="for diffusion models: number of steps of the sampler (default: as in training)",
    )
    command.add_argument(
        "--guidance",
        type=float,
        metavar="W",
        help="for diffusion models: weight W of classifier-free guidance by prompts, or by "
        "classes, which are then drawn in turn; 1 is no guidance. Other models with classes draw "
        "them in turn without it",
    )
    add_prompts(command)
    command.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="a grid of images (.png), or the array x, with z where a checkpoint has it (.npz)",
    )
    command.set_defaults(run=run)


def add_prompts(command: argparse.ArgumentParser) -> None:
    """What text-to-image models draw."""
    command.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="for text-to-image models: what to draw, in a row of its own; may be repeated",
    )
    command.add_argument(
        "--negative", metavar="TEXT", help="what not to draw, with --prompt and --guidance"
    )
    command.add_argument(
        "--subject",
        metavar="FILE",
        help="a subject that latent-ebm tune wrote for this model; prompts name its class",
    )


def run(args: argparse.Namespace) -> None:
    if args.prompt:
        from latent_ebm.cli.prompts import draw_prompts

        draw_prompts(
            args.checkpoint,
            args.out,
            args.prompt,
            args.num or 4,
            steps=args.steps,
            guidance=args.guidance,
            negative=args.negative,
            subject=args.subject,
            seed=args.seed,
            trust=args.trust,
        )
        return
    from latent_ebm.cli.inference import sample

    for option in ("negative", "subject"):
        if (given := getattr(args, option)) is not None:
            raise ValueError(f"--{option} must come with --prompt, got {given!r} alone")
    options = {"num_steps": args.steps, "guidance": args.guidance}
    sample(args.checkpoint, args.out, args.num or 64, options, seed=args.seed, trust=args.trust)
