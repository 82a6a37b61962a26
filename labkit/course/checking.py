"""Run checks on a server, and say what they found."""

import asyncio
import inspect
import os
import re
import secrets
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

from labkit.course.chapters import exercises
from labkit.course.checks import CHECKS, find_checks
from labkit.course.checks.check import Check
from labkit.course.evidence import diagram, keep_evidence
from labkit.course.folder import Noted, mine, noting
from labkit.course.hosting import FileServer, Hosted, LogLine, Target, hosted, is_library
from labkit.course.keep import server_file, server_hash, undefined_names
from labkit.course.masters import Stub, stubs
from labkit.course.probe import MOST_FACTOR, Probe, Trial
from labkit.course.verdict import (
    SERVER_SAYS,
    CannotTell,
    CheckFailed,
    NotYet,
    Report,
    Reports,
    Verdict,
)
from labkit.doctor import machine_factor
from labkit.errors import LabkitError, ServerError

_LONGEST_S: Final = 90.0
_BUSY: Final = 2.0
"""Times slower than the limits allow for: the machine has other work, and time says nothing."""
_MOMENTS: Final = 5
_MOMENT_S: Final = 0.2
_MOST_LINES: Final = 8
_LOOK_S: Final = 0.02
_ADVERT: Final = "    For further information visit https://"
"""Ends what pydantic says, behind the line that matters."""
_PLACE: Final = re.compile(r'  File "(?P<file>[^"]+)", line \d+')
_UNWRITTEN: Final = re.compile(r"^NotImplementedError: (?P<words>.+)")
_UNHEARD: Final = (
    "look at what the recogniser is given: print len(samples), and the largest of abs(samples)"
)
_SEEDS: Final = 10_000


async def check(
    name: str,
    target: Any = None,
    *,
    fresh: bool = False,
    seed: int | None = None,
    strict: bool | None = None,
    record: bool = True,
    tell: Callable[[Report], object] = lambda _: None,
) -> Report | Reports:
    """Check a server, or whatever the check is about.

    It never raises because of what the server does. As the last line of a cell, what it gives
    shows itself.

    Args:
        name: A check (`"ch1.pong"`), an exercise (`"ch1.samples"`), a chapter (`"ch1"`), or
            `"all"`.
        target: A handler such as `handle`, a function that makes one, the path of a file, an
            address, or a server that `start_mine` gave.
        fresh: Check what is kept in your server file, in a process of its own: would it survive
            Restart and Run All?
        seed: What all inputs are drawn from; by default `LABKIT_SEED`, or drawn anew.
        strict: Raise where it does not pass; by default where `LABKIT_STRICT=1` is set.
        record: Note the verdict in your progress; not for a server that you broke on purpose.
        tell: Is given each report as its check ends.

    Raises:
        LabkitError: There is no such check, or nothing to check.
        CheckFailed: It did not pass, and this is strict.
    """
    checks = _checks_of(name)
    if len(checks) > 1 or isinstance(target, str | Path):  # functions are checked one by one
        checks = [one for one in checks if one.probe is not None]
        if not checks:
            raise LabkitError(f"{name} checks no server; its chapter says what it is given")
    if fresh:
        target = server_file()
    elif target is None:
        what = "handle" if checks[0].probe is not None else "your_function"
        raise LabkitError(f"what is to be checked? Write, for instance, check({name!r}, {what})")
    elif checks[0].probe is not None:
        _require_server(name, target)
    drawn = _seed() if seed is None else seed
    with _keeping() as folder, TemporaryFile(dir=folder):
        pass  # now, and not after a check whose evidence is lost
    async with AsyncExitStack() as stack:
        runs = target
        if len(checks) > 1 and isinstance(target, str | Path) and not _is_address(target):
            runs = await stack.enter_async_context(hosted(target))  # one process for all of them
        reports = []
        for one in checks:
            reports.append(await check_one(one, runs, seed=drawn, record=record))
            tell(reports[-1])
    result = reports[0] if len(checks) == 1 and name == checks[0].name else Reports(tuple(reports))
    if strict is None:
        strict = os.environ.get("LABKIT_STRICT") == "1"
    if strict and not result.passed:
        raise CheckFailed(f"{result!r}")
    return result


@contextmanager
def _keeping() -> Iterator[Path]:
    """The folder of all evidence, made where it is not there; what cannot be kept is told why.

    Raises:
        LabkitError: Something in the block, or the folder itself, cannot be written.
    """
    folder = mine() / "evidence"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        raise LabkitError(
            f"the evidence of checks cannot be kept in {folder}: {error.strerror or error}; "
            "make room, or name a folder that you may write to, as in LABKIT_MINE=~/mine"
        ) from error


def _require_server(name: str, target: Any) -> None:
    """Refuse a function that is neither a handler nor makes one."""
    if inspect.isfunction(target):
        parameters = inspect.signature(target).parameters.values()
        needed = sum(
            one.default is one.empty
            and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
            for one in parameters
        )
        if needed > 1:
            raise LabkitError(
                f"{name} talks to a server, and {target.__name__}() takes {needed} values: write "
                f"check({name!r}, handle), whose one value is the connection"
            )


def _checks_of(name: str) -> list[Check]:
    """The checks that decide about an exercise, or those that `find_checks` knows by that name."""
    exercise = exercises().get(name)
    if exercise is None or any(one.name == name for one in CHECKS):
        return find_checks(name)
    return [one for each in exercise.checks for one in find_checks(each)]


def _is_address(target: str | Path) -> bool:
    return str(target).startswith(("ws://", "wss://"))


def _seed() -> int:
    told = os.environ.get("LABKIT_SEED", "")
    if told and not re.fullmatch("[0-9]{1,18}", told):
        raise LabkitError(
            f"LABKIT_SEED is {told!r}, and has to be a whole number from 0 on, of no more than 18 "
            "digits, or unset"
        )
    return int(told) if told else secrets.randbelow(_SEEDS)


async def check_one(one: Check, target: Any, *, seed: int, record: bool = True) -> Report:
    """Run one check, keep its evidence, and note its verdict where it is to be recorded."""
    run = _Run(one, seed)
    await run.on(target)
    if kept := _is_kept(target):
        run.notes += _only_in_the_kernel()
    report = run.report()
    own = kept or callable(target) or one.judge is not None  # not somebody else's server
    if own and record:
        with noting() as progress:
            progress.checks[one.name] = Noted(
                verdict=report.verdict, seed=seed, server=server_hash() if kept else ""
            )
    return report


def _is_kept(target: Any) -> bool:
    """Whether it is the file that the learner's kept cells go into."""
    file = target.file if isinstance(target, FileServer) else target
    return isinstance(file, str | Path) and Path(file).absolute() == server_file().absolute()


def _only_in_the_kernel() -> list[str]:
    path = server_file()
    try:
        names = undefined_names(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return []
    return [f"{name} is in no cell that is kept: keep the one that defines it" for name in names]


async def _watch_log(server: Hosted) -> None:
    """Look at the log again and again: of a process, a line's time is when it was seen."""
    while True:
        server.log()
        await asyncio.sleep(_LOOK_S)


def _without_libraries(log: Sequence[LogLine]) -> list[LogLine]:
    """The log without those lines of its tracebacks that lie in nobody's server."""
    kept, inside = [], False
    for line in log:
        if (place := _PLACE.match(line.text)) is not None:
            inside = is_library(place["file"])
        elif not line.text.startswith("    "):  # neither a line of code nor the carets below it
            inside = False
        if not inside and not line.text.startswith(_ADVERT):
            kept.append(line)
    return kept


async def _settled_factor() -> float:
    """How many times slower the machine is at the best of a few moments, a blink apart."""
    least = machine_factor()
    for _ in range(_MOMENTS - 1):
        if least <= _BUSY:
            break
        await asyncio.sleep(_MOMENT_S)
        least = min(least, machine_factor())
    return least


class _Run:
    """One check on its way to a report."""

    def __init__(self, one: Check, seed: int) -> None:
        self.one = one
        self.seed = seed
        self.factor = min(machine_factor(), MOST_FACTOR)
        self.started_ns = time.perf_counter_ns()
        self.trial: Trial = Trial(seed=seed, factor=self.factor)
        self.log: Sequence[LogLine] = ()
        self.verdict = Verdict.PASSED
        self.fault: NotYet | None = None
        self.reason = ""
        self.notes: list[str] = []
        self.raised: list[str] = []
        self.details = ""

    async def on(self, target: Any) -> None:
        """Run the script; whatever happens becomes a verdict."""
        try:
            async with asyncio.timeout(_LONGEST_S * self.factor):
                if self.one.judge is not None:
                    await self.one.judge(self.trial, target)
                else:
                    await self._probe(target)
        except NotYet as fault:
            await self._not_yet(fault)
        except ServerError as error:
            await self._not_yet(NotYet("a server that starts", str(error)))
        except CannotTell as reason:
            self.verdict, self.reason = Verdict.CANNOT_TELL, str(reason)
        except TimeoutError:
            await self._not_yet(NotYet("the check to come to its end", "no end to it", late=True))
        except LabkitError as error:
            self.verdict, self.reason = Verdict.CANNOT_TELL, str(error)
        except Exception as error:  # ours, since no server can make a probe raise anything else
            self.verdict = Verdict.OUR_FAULT
            self.details = traceback.format_exc()
            self.reason = (
                f"this check failed by itself, with {type(error).__name__}: {error}. Your server "
                "may be right. Please report it, with the folder below"
            )

    async def _probe(self, target: Target) -> None:
        assert self.one.probe is not None
        server: Hosted | None = None
        try:
            async with hosted(target) as server, AsyncExitStack() as stack:
                watching = asyncio.create_task(_watch_log(server))
                stack.callback(watching.cancel)
                self.trial = probe = Probe(server, seed=self.seed, factor=self.factor, stack=stack)
                await self.one.probe(probe)
        finally:
            if server is not None:
                self.notes += server.left()
                self.raised = list(dict.fromkeys(server.raised()))
                self.log = [line for line in server.log() if line.at_ns >= self.started_ns]

    async def _not_yet(self, fault: NotYet) -> None:
        # What the server raised is reason enough that something never came.
        late = fault.late and not self.raised
        if late and (slower := await _settled_factor() / self.factor) > _BUSY:
            self.verdict = Verdict.CANNOT_TELL
            self.reason = (
                f"the machine is too busy: it is {slower:.0f} times slower than this check allows "
                f"for, and this is about time ({fault.observed})"
            )
        else:
            self.verdict, self.fault = Verdict.NOT_YET, fault

    def report(self) -> Report:
        """What was found."""
        fault = None if self.fault is None else self.fault.event
        drawn = diagram(self.trial.events, self.started_ns, fault)
        if self.verdict is Verdict.PASSED:  # else it is told among the lines of the log
            self.notes += [f"all the same, your handler raised {error}" for error in self.raised]
        with _keeping() as evidence:
            folder = evidence / self.one.name
            keep_evidence(folder, self.trial.events, self.log, self.started_ns, drawn)
            if self.details:
                (folder / "fault.txt").write_text(self.details, encoding="utf-8")
        return Report(
            check=self.one.name,
            title=self.one.title,
            verdict=self.verdict,
            told=self._told(),
            fault=self.fault,
            reason=self.reason,
            notes=self.notes,
            help=self._help(),
            seed=self.seed,
            evidence=folder if self.one.probe is not None or self.details else None,
            diagram=drawn if self.trial.events else "",
        )

    def _help(self) -> tuple[str, ...]:
        """What to do now; nothing where there is no fault."""
        if self.fault is None:
            return ()
        helps = [f'hint("{self.one.name}") helps']
        if self.fault.observed == "an empty transcript":
            helps.append(_UNHEARD)
        if (stub := self._unwritten()) is not None:
            helps = [
                f"`{stub.function}` is still to be written: that is exercise {stub.exercise}, and "
                f'hint("{stub.exercise}") helps'
            ]
        return tuple(helps)

    def _unwritten(self) -> Stub | None:
        """The function of another exercise that was called and is not written yet, if any."""
        for line in reversed(self.log):
            if (raised := _UNWRITTEN.search(line.text)) is not None:
                stub = stubs().get(raised["words"])
                if stub is None or self.one.name in exercises()[stub.exercise].checks:
                    return None
                return stub
        return None

    def _told(self) -> list[str]:
        """What held, and the last lines of the server's log, in the order of time."""
        held = [(at_ns, f"✔ {what}") for at_ns, what in self.trial.held]
        if self.verdict is Verdict.PASSED:
            return [line for _, line in held]
        log = _without_libraries(self.log)
        lines = [(line.at_ns, f"{SERVER_SAYS} {line.text}") for line in log]
        return [line for _, line in sorted([*held, *lines[-_MOST_LINES:]], key=lambda one: one[0])]
