"""labkit: a voice server you can hear, measure and build yourself.

What a notebook needs, in one line of import::

    from labkit import recording, say, start_labkit

    server = await start_labkit()                       # in a process of its own
    turn = await say(recording("ked-01"), server)
    turn                                                # words, players, a waterfall to click
    turn.plot_waterfall()
    turn.plot_waveform()
    server.status()                                     # sessions, queues, stage times

    server.stop()                                       # in another cell

`start_mine` starts the server that a learner builds in the course, and `start_naive` the one that
the course begins with; `stop_servers` stops them all, and a `ServerPanel` has buttons for one and
shows what it does. A turn is a `SpokenTurn`, and `recordings` lists what there is to say.
`run_exercise` measures how chunk size trades against latency, `exercise_figures` draws what it
found, and a `Bench` has sliders for short experiments; `show` puts a figure into a cell's output,
and `play` a player. `run` drives a coroutine from a plain function, such as a widget's callback.

What a server of your own needs, on the same engines: `load_pipeline` gives the pipeline of VAD,
ASR, LLM and TTS for the models that `resolve` finds, and `EchoPipeline` is one without models. An
`Utterance` takes the audio that comes in, which `WIRE` decodes (16 kHz, `SAMPLE_RATE`; any other
`AudioFormat` likewise). `pipeline.listen` works ahead on it; `pipeline.answer` runs a `Turn` of
utterance and `History`, hands what comes out to a `Sink`, and gives the `Exchange` to remember.
README.md has such a server, of forty lines.

Labkit's own server within your program is `VoiceServer`, told by `ServerSettings`; its clients are
`VoiceClient` (the plain dialect) and `SessionClient` (labkit.v1). What goes wrong is a
`LabkitError`.

The package follows the way of a spoken second: `labkit.audio`, `labkit.protocol`, `labkit.voice`,
`labkit.session`, `labkit.server`, `labkit.client`; then `labkit.measure`, `labkit.drills`,
`labkit.course`, `labkit.notebook` and `labkit.cli`.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import TYPE_CHECKING

from labkit import telemetry

if TYPE_CHECKING:
    from labkit.audio.formats import WIRE, AudioFormat
    from labkit.audio.pcm import SAMPLE_RATE
    from labkit.client.plain import VoiceClient
    from labkit.client.v1 import SessionClient
    from labkit.errors import LabkitError
    from labkit.measure.exercise_figures import exercise_figures
    from labkit.measure.recordings import recording
    from labkit.notebook.bench import Bench
    from labkit.notebook.exercise import run_exercise
    from labkit.notebook.loop import run
    from labkit.notebook.panel import ServerPanel
    from labkit.notebook.server import start_labkit, start_mine, start_naive, stop_servers
    from labkit.notebook.show import play, show
    from labkit.notebook.turn import SpokenTurn, recordings, say
    from labkit.server.app import VoiceServer
    from labkit.session.settings import ServerSettings
    from labkit.voice.hearing import Utterance
    from labkit.voice.history import Exchange, History
    from labkit.voice.models import load_pipeline, resolve
    from labkit.voice.pipeline import EchoPipeline, Sink, Turn

__all__ = [
    "SAMPLE_RATE",
    "WIRE",
    "AudioFormat",
    "Bench",
    "EchoPipeline",
    "Exchange",
    "History",
    "LabkitError",
    "ServerPanel",
    "ServerSettings",
    "SessionClient",
    "Sink",
    "SpokenTurn",
    "Turn",
    "Utterance",
    "VoiceClient",
    "VoiceServer",
    "__version__",
    "exercise_figures",
    "load_pipeline",
    "play",
    "recording",
    "recordings",
    "resolve",
    "run",
    "run_exercise",
    "say",
    "show",
    "start_labkit",
    "start_mine",
    "start_naive",
    "stop_servers",
]

telemetry.switch_off()  # before any other module of labkit can import an engine

try:
    __version__ = version("labkit")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"

_PLACES = MappingProxyType(
    {
        "SAMPLE_RATE": "labkit.audio.pcm",
        "WIRE": "labkit.audio.formats",
        "AudioFormat": "labkit.audio.formats",
        "Bench": "labkit.notebook.bench",
        "EchoPipeline": "labkit.voice.pipeline",
        "Exchange": "labkit.voice.history",
        "History": "labkit.voice.history",
        "LabkitError": "labkit.errors",
        "ServerPanel": "labkit.notebook.panel",
        "ServerSettings": "labkit.session.settings",
        "SessionClient": "labkit.client.v1",
        "Sink": "labkit.voice.pipeline",
        "SpokenTurn": "labkit.notebook.turn",
        "Turn": "labkit.voice.pipeline",
        "Utterance": "labkit.voice.hearing",
        "VoiceClient": "labkit.client.plain",
        "VoiceServer": "labkit.server.app",
        "exercise_figures": "labkit.measure.exercise_figures",
        "load_pipeline": "labkit.voice.models",
        "play": "labkit.notebook.show",
        "recording": "labkit.measure.recordings",
        "recordings": "labkit.notebook.turn",
        "resolve": "labkit.voice.models",
        "run": "labkit.notebook.loop",
        "run_exercise": "labkit.notebook.exercise",
        "say": "labkit.notebook.turn",
        "show": "labkit.notebook.show",
        "start_labkit": "labkit.notebook.server",
        "start_mine": "labkit.notebook.server",
        "start_naive": "labkit.notebook.server",
        "stop_servers": "labkit.notebook.server",
    }
)
"""Where each name comes from. Importing labkit loads none of them, so that it takes no time."""


def __getattr__(name: str) -> object:
    """Load what is asked for, once."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_PLACES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
