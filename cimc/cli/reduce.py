"""``cimc reduce``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Unpack

import click
from click.core import ParameterSource

from cimc.cli import options as opt
from cimc.cli import put
from cimc.errors import Exit
from cimc.session import Numerics


@click.command("reduce")
@click.argument("model", type=opt.PATH)
@click.option("-o", "--output", type=opt.OUT_FILE, required=True, metavar="OUT.onnx", help="Where the part goes.")
@opt.check_options
@opt.run_options
@click.option("--atol", type=opt.Finite(min=0), help="Largest absolute error allowed.")
@click.option("--rtol", type=opt.Finite(min=0), help="Largest error allowed, relative to the output's largest value.")
@click.option(
    "--min-cosine", type=opt.Finite(-1, 1), default=0.98, show_default=True, help="For integer and analog numerics."
)
@click.option("--max-trials", type=click.IntRange(min=1), default=80, show_default=True, help="Checks to make at most.")
@opt.verbosity
@click.pass_context
def command(
    ctx: click.Context,
    model: Path,
    output: Path,
    inputs_path: Path | None,
    numerics: Numerics,
    seed: int,
    atol: float | None,
    rtol: float | None,
    min_cosine: float,
    max_trials: int,
    verbose: bool,
    quiet: bool,
    **flags: Unpack[opt.CompileFlags],
) -> int:
    """Cut MODEL, which fails `cimc check`, down to the smallest part that still fails in the same way.

    OUT.onnx is a model of its own; the values that the rest of MODEL gave it are beside it in OUT.npz.

    \b
    Example:
      cimc reduce model.onnx --dim sequence=16 -o part.onnx
    """
    from cimc import inputs as input_files
    from cimc import reducer
    from cimc.checker import CheckOptions
    from cimc.report.compare import Tolerance

    chosen = opt.compile_as(flags)
    given = input_files.read(inputs_path) if inputs_path else None
    how = CheckOptions(numerics, seed, given, Tolerance(numerics, atol, rtol, min_cosine), timing=False)
    say = put.note
    if given is None:
        say(f"inputs drawn from seed {seed}", quiet)
    found = reducer.reduce_model(str(model), chosen, how, max_trials=max_trials, say=lambda text: say(text, quiet))
    inputs = output.with_suffix(".npz")
    put.save_bytes(output, found.model)
    put.save_arrays(inputs, found.inputs)
    click.echo(f"reduced {found.nodes} nodes to {found.kept} in {found.trials} trials: {found.failure.told}")
    click.echo(f"to see it fail: cimc check {shlex.join([str(output), '--inputs', str(inputs), *_same(ctx)])}")
    if verbose:
        click.echo(f"failure: {found.failure.kind}")
    return Exit.OK


def _same(ctx: click.Context) -> list[str]:
    """The options with which the part fails as the model did; its dims and inputs are its own."""
    own = {"output", "dims", "inputs_path", "max_trials", "verbose", "quiet"}
    found: list[str] = []
    for param in ctx.command.params:
        name = param.name or ""
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not isinstance(param, click.Option) or name in own or not given:
            continue
        value = ctx.params[name]
        for one in value if isinstance(value, tuple) else (value,):
            found += [max(param.opts, key=len), str(one)]
    return found
