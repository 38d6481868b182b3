"""``cimc``: the commands, and what happens when one fails."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import TextIO

import click

from cimc.collecting import leave, uncollected
from cimc.errors import FILE_SYSTEM, MEMORY, CimcError, Exit, did_you_mean

COMMANDS = {
    "compile": "Lower an ONNX model to tile programs.",
    "run": "Run a compiled model or a .cim program.",
    "check": "Compile, run, and compare with onnxruntime.",
    "sweep": "Compare variants of hardware and mapping.",
    "reduce": "Cut a model that fails check down to the part that does.",
    "inspect": "Show what went where: chip map and layers.",
    "hw": "List, show and validate hardware.",
    "diff": "Put two compiles or runs side by side.",
    "asm": "Parse, verify and print a program canonically.",
}


class Group(click.Group):
    """Commands are imported when they are called: `cimc --help` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        with uncollected():
            found = importlib.import_module(f"cimc.cli.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a suggestion for a mistyped command."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            meant = did_you_mean(args[0], COMMANDS)
            ctx.fail(f"no command is called '{args[0]}'; {meant}commands: {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="cimc")
def cli() -> None:
    """Compile ONNX transformers to compute-in-memory hardware, run the tile programs, check them against onnxruntime.

    \b
    Example:
      cimc check model.onnx --dim sequence=128
    """


def main(argv: list[str] | None = None) -> None:
    """Run a command; every outcome ends with the contract's exit code."""
    sys.stdout = sys.stdout or _nowhere()  # closed by whoever called
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no µ gets a question mark, not a traceback
    code = run(argv)
    leave()
    sys.exit(code)


def run(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        code = cli.main(argv, prog_name="cimc", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else Exit.OK
    except CimcError as e:
        click.echo(e.render(), err=True)
        return e.exit
    except click.exceptions.NoArgsIsHelpError as e:
        click.echo(e.format_message())
        return Exit.OK
    except click.ClickException as e:
        e.show()
        return Exit.USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    except SystemExit:
        # click's answer to a broken pipe: the reader of our output has gone (head, a closed pager); nothing is left to say.
        return Exit.OK
    except BrokenPipeError:
        _drop_output()
        return Exit.OK
    except OSError as e:  # of a path or disk, where nothing closer to it has a better word
        why = e.strerror or str(e)
        if e.filename is None:
            _drop_output()
        click.echo(FILE_SYSTEM(path=e.filename or "standard output", why=why).render(), err=True)
        return Exit.USAGE
    except MemoryError:
        click.echo(MEMORY().render(), err=True)
        return Exit.DOES_NOT_FIT
    except Exception:  # the last resort: a fault of cimc itself, told as one
        return _bug()


def _nowhere() -> TextIO:
    """A stream for output that nobody takes."""
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _drop_output() -> None:
    """Let what is left of the output go nowhere at exit: where it went cannot take it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bug() -> int:
    import traceback
    from importlib.metadata import version

    traceback.print_exc()
    click.echo(
        f"\nThis is a bug in cimc {version('cimc')}. Please report it with the lines above, the command line"
        f" ({' '.join(sys.argv[1:])}), and the model and hardware file if you can share them.",
        err=True,
    )
    return Exit.BUG
