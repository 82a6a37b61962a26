"""`labkit drill …`: break the server on purpose, and check what it promises.

Each command prints a row for each promise, and exits 1 where one is broken.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from labkit.cli.models import SetOption
from labkit.cli.terminal import counting_bar, number, print_table, run
from labkit.errors import LabkitError

if TYPE_CHECKING:
    from labkit.drills import Finding, Verdict
    from labkit.measure.results import Tell

drill = typer.Typer(
    help="Break the server on purpose, and check what it promises.", no_args_is_help=True
)


@drill.command()
def resume(
    cuts: Annotated[
        int,
        typer.Option(
            min=0,
            help="Connections to cut without engines: so many where the client ends its "
            "utterances, and so many where the server does.",
        ),
    ] = 1000,
    voice_cuts: Annotated[int, typer.Option(min=0, help="The same while the engines answer.")] = 20,
    seed: Annotated[int, typer.Option(help="Draws where they are cut.")] = 1,
) -> None:
    """Cut connections at random bytes, both ways; nothing may be lost or repeated."""
    from labkit.drills.resume import run_resume

    if not cuts and not voice_cuts:
        raise LabkitError("there is nothing to do: --cuts and --voice-cuts are both 0")
    findings: list[Finding] = []
    _carry_out(lambda tell: run_resume(cuts, voice_cuts, seed, tell, findings), findings)


@drill.command()
def stalled(
    clients: Annotated[int, typer.Option(min=1, help="Clients that read nothing.")] = 100,
    seconds: Annotated[
        float, number(min=1, max=3600, help="How long other callers are timed, three times.")
    ] = 30,
) -> None:
    """Let clients read nothing of their replies; neither memory nor others may suffer."""
    from labkit.drills.stalled import run_stalled

    _carry_out(lambda tell: run_stalled(clients, seconds, tell))


@drill.command()
def abandoned(
    clients: Annotated[int, typer.Option(min=1, help="Clients for each way of leaving.")] = 10,
    pipeline: Annotated[Literal["echo", "voice"], typer.Option(help="What answers.")] = "voice",
) -> None:
    """Abandon sessions in every way there is; nothing of them may be left."""
    from labkit.drills.abandoned import run_abandoned

    _carry_out(lambda tell: run_abandoned(clients, pipeline, tell))


@drill.command()
def fuzz(
    messages: Annotated[int, typer.Option(min=2, help="Messages to send.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Decides what each connection sends.")] = 1,
    dialect: Annotated[
        Literal["both", "plain", "v1"], typer.Option(help="What the clients pretend to speak.")
    ] = "both",
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Connections at a time.")] = 8,
    url: Annotated[
        str | None,
        typer.Option(
            help="Attack a server that runs already, one of yours; no look at its log. Only an "
            "echo server passes (labkit serve --pipeline echo): what it answers is known."
        ),
    ] = None,
) -> None:
    """Send hostile messages; the server must answer each in its dialect, and lose nothing."""
    from labkit.drills import Dialect
    from labkit.drills.fuzz import Crowd, run_fuzz

    dialects = tuple(Dialect) if dialect == "both" else (Dialect(dialect),)
    crowd = Crowd(seed, dialects, parallel)
    _carry_out(lambda tell: run_fuzz(url, messages, crowd, tell))


@drill.command()
def hostile(
    seconds: Annotated[float, number(min=1, max=3600, help="How long each attacks.")] = 5,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="This kind only, such as 'pings'; may be repeated."),
    ] = None,
) -> None:
    """Let a hostile caller of each kind attack beside an honest one, who must not notice."""
    from labkit.drills.hostile import run_hostile

    findings: list[Finding] = []
    _carry_out(lambda tell: run_hostile(only or (), seconds, tell, findings), findings)


@drill.command()
def crosstalk(
    sessions: Annotated[int, typer.Option(min=1, help="Callers at once.")] = 16,
    turns: Annotated[int, typer.Option(min=2, max=8, help="Utterances of each caller.")] = 4,
    seed: Annotated[int, typer.Option(help="Draws who says what, and when each begins.")] = 1,
    pace: Annotated[
        float, number(min=0, max=1000, help="Times the pace of speech, in the crowd; 0 is at once.")
    ] = 1.0,
    model_set: SetOption = "embedded",
    url: Annotated[
        str | None,
        typer.Option(help="Call a server that runs already, labkit's or any that speaks plain."),
    ] = None,
) -> None:
    """Let many callers talk at once; each must hear what it hears alone."""
    from labkit.drills.crosstalk import run_crosstalk

    _carry_out(
        lambda tell: run_crosstalk(
            url,
            sessions=sessions,
            turns=turns,
            seed=seed,
            pace=pace,
            model_set=model_set,
            tell=tell,
        )
    )


@drill.command()
def formats(
    quick: Annotated[bool, typer.Option("--quick", help="Every ninth recording only.")] = False,
    url: Annotated[
        str | None,
        typer.Option(help="Send to a server that runs already, labkit's or any that speaks plain."),
    ] = None,
) -> None:
    """Send audio that is not what it is declared to be: it must be found, and be named right.

    Of each lie that can be told, 95 % must be; of audio that is as declared,
    nothing may be said.
    """
    from labkit.drills.formats import run_formats

    findings: list[Finding] = []
    _carry_out(lambda tell: run_formats(url, quick=quick, tell=tell, findings=findings), findings)


def _carry_out(
    work: "Callable[[Tell], Coroutine[Any, Any, Verdict]]", findings: "Sequence[Finding]" = ()
) -> None:
    """Run a drill, and judge it; where something ends it, `findings` until then are printed."""
    from labkit.drills import Verdict

    try:
        with counting_bar() as tell:
            verdict = run(work(tell))
    except BaseException:
        if findings:
            print_table(verdict_table(Verdict("not finished; found until then", tuple(findings))))
        raise
    judge(verdict)


def judge(verdict: "Verdict") -> None:
    """Print what a drill found; ends the command with code 1 where a promise was broken."""
    print_table(verdict_table(verdict))
    if not verdict.holds:
        raise typer.Exit(1)


def verdict_table(verdict: "Verdict") -> Table:
    """A row for each finding."""
    table = Table(
        "", "found", "promised", "holds", title=escape(verdict.title), box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    table.columns[1].justify = "right"
    for finding in verdict.findings:
        table.add_row(
            escape(finding.name), escape(_value(finding)), escape(finding.bar), _holds(finding)
        )
    return table


def _value(finding: "Finding") -> str:
    match finding.value:
        case str() as words:
            return words
        case int() as whole:
            return f"{whole:,}"
        case number:
            return f"{round(number, 2) + 0:.2f}"  # + 0: there is a zero below zero


def _holds(finding: "Finding") -> str:
    if not finding.bar:
        return "[dim]told[/]"
    return "[green]yes[/]" if finding.holds else "[bold red]no[/]"
