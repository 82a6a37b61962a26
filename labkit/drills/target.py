"""A server to be drilled: any settings, either pipeline, in a process of its own.

Run it through `labkit.measure.server_process.running_server` with the command that `target_command`
gives. What it is told comes as one JSON object on its command line.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, Literal

from labkit.errors import InstrumentError
from labkit.server.app import VoiceServer, serve_until_signal
from labkit.session.settings import ServerSettings
from labkit.voice.models import load_pipeline, resolve
from labkit.voice.pipeline import EchoPipeline, Pipeline

__all__ = ["PipelineName", "main", "settings_of", "target_command"]

PipelineName = Literal["echo", "voice"]

_HERE: Final[Mapping[str, Any]] = {"host": "127.0.0.1", "port": 0}


def target_command(
    pipeline: PipelineName = "echo",
    *,
    model_set: str = "embedded",
    threads: int | None = None,
    **settings: Any,
) -> list[str]:
    """The command that runs the server, on a free port of this machine where none is named.

    Args:
        pipeline: What answers: an echo, or the engines.
        model_set: Where the engines' models come from.
        threads: CPU threads of each engine; by default what `labkit serve` takes.
        settings: Fields of `ServerSettings` that are not to have their defaults.

    Raises:
        InstrumentError: There is no such setting.
    """
    settings_of(settings)
    told = {
        "pipeline": pipeline,
        "model_set": model_set,
        "threads": threads,
        "settings": settings,
    }
    return ["labkit.drills.target", json.dumps(told)]


def settings_of(told: Mapping[str, Any]) -> ServerSettings:
    """The server's settings with what is `told` of them.

    Raises:
        InstrumentError: There is no such setting.
    """
    known = {field.name for field in fields(ServerSettings)}
    if unknown := sorted(set(told) - known):
        raise InstrumentError(
            f"the server has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}"
        )
    return ServerSettings(**{**_HERE, **told})


def _pipeline_of(told: Mapping[str, Any]) -> Pipeline:
    if told["pipeline"] == "echo":
        return EchoPipeline()
    return load_pipeline(resolve(told["model_set"]), threads=told["threads"])


def _announce(server: VoiceServer) -> None:
    sys.stdout.write(f"the target is ready at {server.url}\n")
    sys.stdout.flush()


def main() -> None:
    """Run the server until it is told to end; its log goes to stderr."""
    told = json.loads(sys.argv[1])
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("websockets").setLevel(logging.WARNING)
    settings = settings_of(told["settings"])
    asyncio.run(serve_until_signal(_pipeline_of(told), settings, _announce))


if __name__ == "__main__":
    main()
