"""`labkit models …`: find, pull and examine models; and the options that name them."""

import importlib
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from labkit.cli.terminal import console, require_file
from labkit.errors import LabkitError, ModelNotFoundError

if TYPE_CHECKING:
    from labkit.voice.models import Model

SetOption = Annotated[
    str, typer.Option("--models", metavar="SET", help="Set of models; see 'labkit models list'.")
]
AsrOption = Annotated[str | None, typer.Option(help="Another recogniser, such as base.en.")]
LlmOption = Annotated[
    str | None,
    typer.Option(
        help="Another language model: such as x.gguf, or the address of a chat server, such as "
        "http://localhost:8080/v1."
    ),
]
TtsOption = Annotated[str | None, typer.Option(help="Another voice; see 'labkit models list'.")]

models = typer.Typer(help="Find, pull and examine models.", no_args_is_help=True)


@models.command("list")
def list_models() -> None:
    """List the sets, their models, and where each lies on this machine."""
    from labkit.voice.models import SETS, models_of

    shown = console()
    for name, about in SETS.items():
        shown.print(f"[bold]{name}[/]  {about}", soft_wrap=True)
        for model in models_of(name):
            shown.print(f"  --{model.role} [cyan]{model.name}[/]", soft_wrap=True)
            shown.print(f"        {model.about}; licence {model.licence}", soft_wrap=True)
            shown.print(f"        {_place(model)}", soft_wrap=True)
        shown.print()


def _place(model: "Model") -> str:
    from labkit.voice.models import locate

    try:
        return escape(str(locate(model)))
    except ModelNotFoundError as error:
        return f"[dim]not here. {escape(error.mend)}[/]"


@models.command()
def pull(
    name: Annotated[str | None, typer.Argument(help="A set.", metavar="SET")] = None,
    asr: AsrOption = None,
    llm: LlmOption = None,
    tts: TtsOption = None,
) -> None:
    """Pull a set, or single models, into the ordinary cache of the model hub."""
    from labkit.voice import hub
    from labkit.voice.models import Role, find, locate, models_of

    own = {Role.ASR: asr, Role.LLM: llm, Role.TTS: tts}
    wanted = list(models_of(name)) if name else []
    wanted += [find(role, word) for role, word in own.items() if word]
    if not wanted:
        raise typer.BadParameter("name a set or a model, such as: labkit models pull small")
    for model in wanted:
        if not isinstance(model.place, hub.Source):
            here = f"{model.name}: nothing to pull, it lies at {locate(model)}"
            console().print(here, soft_wrap=True, markup=False)
            continue
        path = hub.pull(model.place)
        console().print(f"{model.name}: {path}", soft_wrap=True, markup=False)


@models.command()
def verify(
    model_set: SetOption = "embedded",
    digits: Annotated[
        Path | None, typer.Option(help="Archive of human digits; without it, those rows are left.")
    ] = None,
) -> None:
    """Examine models; exits 1 where something is amiss.

    The embedded ones are measured on held-out material. Of others every file is
    read, and has to be the one that labkit knows, or that was first pulled.
    """
    if model_set != "embedded":
        _verify_files(model_set)
        return
    if digits is not None:  # looked at only after minutes otherwise
        require_file(digits)
        if not tarfile.is_tarfile(digits):
            raise LabkitError(f"--digits {digits} is no tar archive")
    examination = _recipe_of_evaluation()
    raise typer.Exit(examination.main(["--digits", str(digits)] if digits else []))


def _verify_files(model_set: str) -> None:
    from labkit.voice.models import check_files, models_of

    shown, all_same = console(), True
    for model in models_of(model_set):
        for path, same in check_files(model):
            sign = "[green]same   [/]" if same else "[bold red]CHANGED[/]"
            shown.print(f"{sign} {model.name}: {escape(str(path))}", soft_wrap=True)
            all_same &= same
    if not all_same:
        raise typer.Exit(1)


def _recipe_of_evaluation() -> ModuleType:
    from labkit.voice.models import data_folder

    checkout = data_folder().resolve().parent
    if not (checkout / "data/recipes/evaluation/verify.py").is_file():
        raise LabkitError(
            "models are examined by data/recipes/evaluation, which comes with a checkout and not "
            f"with the package, and {checkout} holds none; run this command in a checkout"
        )
    sys.path.insert(0, str(checkout))  # recipes import one another as data.recipes…
    return importlib.import_module("data.recipes.evaluation.verify")
