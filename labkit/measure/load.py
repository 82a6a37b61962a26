"""Many paced callers against a server, level by level: what `labkit load` runs.

Every level is run on labkit's server and on a bare one, in random order, with the same callers;
each server has a process of its own, and all callers together have this one.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from labkit.audio.pcm import read_audio
from labkit.client.plain import VoiceClient
from labkit.errors import LabkitError
from labkit.measure.capacity import BARE, LATENESS_BOUND_MS, Level
from labkit.measure.capacity_report import as_object, ratios, sentences, write_levels
from labkit.measure.level import run_level
from labkit.measure.load_config import LoadConfig, plan_levels
from labkit.measure.machine import about_machine
from labkit.measure.pace import Pace
from labkit.measure.recordings import Kind, load_manifest
from labkit.measure.results import write_json
from labkit.measure.script import Speech, speech_of
from labkit.measure.server_process import RunningServer, labkit_server, running_server

__all__ = [
    "GIVEN",
    "LABKIT",
    "Load",
    "LoadProgress",
    "recorded_speech",
    "run_load",
    "write_load",
]

LABKIT: Final = "labkit"
GIVEN: Final = "given"
"""Name of a server that was already running."""

_LIBRARIES: Final = ("labkit", "websockets", "numpy")


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load has come.

    Attributes:
        done_s: Seconds of levels that are over.
        total_s: Seconds of all levels.
        now: What happens now, in words.
    """

    done_s: float
    total_s: float
    now: str


Tell = Callable[[LoadProgress], None]


@dataclass(slots=True)
class Load:
    """What a load gave.

    Attributes:
        config: What was run.
        levels: One per level and server, in the order in which they ran.
        about: Versions, machine and method.
    """

    config: LoadConfig
    levels: list[Level] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """What the load found, in words."""
        return sentences(self.levels, self.config.bound_ms)


def recorded_speech(folder: Path, chunk_ms: int) -> list[Speech]:
    """Every recording of one utterance, up to the end of its speech, cut and encoded.

    Raises:
        AudioError: A recording or the manifest is not usable.
        LabkitError: There is no recording of an utterance.
    """
    found = [
        speech_of(
            read_audio(recording.path),
            chunk_ms=chunk_ms,
            end_of_speech=recording.end_of_speech_sample,
        )
        for recording in load_manifest(folder)
        if recording.kind is Kind.UTTERANCE
    ]
    if not found:
        raise LabkitError(f"recordings: {folder} holds no utterance; add one to its manifest")
    return found


async def run_load(
    config: LoadConfig, tell: Tell = lambda _: None, pace: Pace | None = None
) -> Load:
    """Run all levels.

    Args:
        config: What to run.
        tell: Told several times a second.
        pace: The clock that callers go by.

    Raises:
        AudioError: A recording or the manifest is not usable.
        ServerError: A server did not start.
        ClientError: No server answers at the given address.
    """
    speeches = recorded_speech(config.recordings, config.chunk_ms)
    load = Load(config, about=_about(config))
    async with AsyncExitStack() as stack:
        tell(LoadProgress(0, 1, "starting the servers"))
        servers = await _servers(config, stack)
        plan = plan_levels(config.sessions, list(servers), seed=config.seed)
        for number, (sessions, name) in enumerate(plan):
            level = await run_level(
                servers[name],
                sessions,
                speeches,
                config,
                name=name,
                pace=pace or Pace(),
                tell=_teller(tell, number, len(plan), config.seconds, f"{sessions} × {name}"),
            )
            load.levels.append(level)
    return load


def _teller(
    tell: Tell, number: int, levels: int, seconds: float, now: str
) -> Callable[[float], None]:
    """Tells of the seconds of level `number` as a part of the whole."""
    return lambda passed: tell(LoadProgress(number * seconds + passed, levels * seconds, now))


async def _servers(config: LoadConfig, stack: AsyncExitStack) -> dict[str, RunningServer]:
    """The servers by name, started where none was given."""
    if config.url is not None:
        async with VoiceClient.connect(config.url):  # says in words where nobody answers
            pass
        return {GIVEN: RunningServer(config.url)}
    # Twice the places: a level may begin while the callers of the one before still hang up.
    places = str(2 * config.sessions[-1])
    commands = {
        LABKIT: labkit_server(
            "--pipeline", config.pipeline, "--max-sessions", places, *config.model_options
        ),
        BARE: ["labkit.course.bare_server"],
    }
    return {
        name: await stack.enter_async_context(running_server(command))
        for name, command in commands.items()
    }


def _about(config: LoadConfig) -> dict[str, Any]:
    return {
        **about_machine(_LIBRARIES),
        "settings": asdict(config) | {"recordings": config.recordings.name},
        "bound_ms": config.bound_ms,
        "generator_lateness_bound_ms": LATENESS_BOUND_MS,
        "method": "latencies count from when a message was due; lost turns and pings count with "
        "the callers' patience; all callers are one process, each server is one of its own",
    }


def write_load(load: Load, folder: Path) -> None:
    """Write `load.csv` and `load.json` into `folder`, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_levels(folder / "load.csv", load.levels)
    content = {
        "about": load.about,
        "conclusion": load.sentences(),
        "levels": [as_object(level) for level in load.levels],
        "ratios_over_bare": ratios(load.levels),
    }
    write_json(folder / "load.json", content)
