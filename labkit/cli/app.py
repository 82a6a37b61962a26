"""The commands in the order in which one uses them, and what becomes of errors."""

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Final, NoReturn

import typer
from rich.markup import escape
from typer.core import TyperGroup

from labkit import __version__
from labkit.cli.course import check, lab, progress
from labkit.cli.drill import drill
from labkit.cli.exercise import exercise
from labkit.cli.measure import bench, endpointing, load
from labkit.cli.models import models
from labkit.cli.proxy import proxy
from labkit.cli.serve import serve
from labkit.cli.talk import talk
from labkit.cli.terminal import console, errors, show_on_any_console
from labkit.cli.tools import doctor, protocol, token
from labkit.errors import LabkitError

_COMMANDS: Final[Mapping[str, typer.Typer | Callable[..., None]]] = {
    "doctor": doctor, "serve": serve, "talk": talk, "lab": lab, "check": check,
    "progress": progress, "exercise": exercise, "endpointing": endpointing, "load": load,
    "bench": bench, "drill": drill, "proxy": proxy, "models": models, "token": token,
    "protocol": protocol,
}  # fmt: skip


class _InOrder(TyperGroup):
    """Lists its commands in the order of use; Typer would list groups behind commands."""

    def list_commands(self, ctx: object) -> list[str]:
        """The names, in that order."""
        return list(_COMMANDS)


app = typer.Typer(
    name="labkit",
    cls=_InOrder,
    help="A voice server you can hear, measure and build yourself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for name, command in _COMMANDS.items():
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        # What JupyterLab is to be told goes through `lab` as it is.
        lets_pass = command is lab
        settings = {"allow_extra_args": lets_pass, "ignore_unknown_options": lets_pass}
        app.command(name, context_settings=settings)(command)


def _print_version(asked: bool) -> None:
    if asked:
        console().print(f"labkit {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """What may stand before a command."""


def run_command_line() -> None:
    """Run the command that was typed; what it cannot do becomes one line and exit code 1."""
    show_on_any_console()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, and not in the end: then nobody could tell of a failure
    except LabkitError as error:
        _give_up(str(error))
    except ModuleNotFoundError as error:
        _give_up(
            f"the package {error.name} is not installed; run 'make setup', or install it with pip"
        )
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        unnamed = "the working folder" if gone else "what was printed cannot be written"
        _give_up(f"{error.filename or unnamed}: {error.strerror or error}")


def _give_up(why: str) -> NoReturn:
    errors().print(f"[bold red]error:[/] {escape(why)}", soft_wrap=True)
    raise SystemExit(1)
