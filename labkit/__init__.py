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

from labkit import telemetry

TYPE_CHECKING = False  # type checkers take it for true; typing takes longer to import than all this
if TYPE_CHECKING:
    from labkit.audio.formats import WIRE as WIRE
    from labkit.audio.formats import AudioFormat as AudioFormat
    from labkit.audio.pcm import SAMPLE_RATE as SAMPLE_RATE
    from labkit.client.plain import VoiceClient as VoiceClient
    from labkit.client.v1 import SessionClient as SessionClient
    from labkit.errors import LabkitError as LabkitError
    from labkit.measure.experiment_figures import exercise_figures as exercise_figures
    from labkit.measure.recordings import recording as recording
    from labkit.notebook.bench import Bench as Bench
    from labkit.notebook.bench import run_exercise as run_exercise
    from labkit.notebook.cell import play as play
    from labkit.notebook.cell import run as run
    from labkit.notebook.cell import show as show
    from labkit.notebook.server import start_labkit as start_labkit
    from labkit.notebook.server import start_mine as start_mine
    from labkit.notebook.server import start_naive as start_naive
    from labkit.notebook.server import stop_servers as stop_servers
    from labkit.notebook.turn import SpokenTurn as SpokenTurn
    from labkit.notebook.turn import recordings as recordings
    from labkit.notebook.turn import say as say
    from labkit.notebook.widgets import ServerPanel as ServerPanel
    from labkit.server.app import VoiceServer as VoiceServer
    from labkit.session.settings import ServerSettings as ServerSettings
    from labkit.voice.hearing import Utterance as Utterance
    from labkit.voice.history import Exchange as Exchange
    from labkit.voice.history import History as History
    from labkit.voice.loading import load_pipeline as load_pipeline
    from labkit.voice.models import resolve as resolve
    from labkit.voice.pipeline import EchoPipeline as EchoPipeline
    from labkit.voice.turn import Sink as Sink
    from labkit.voice.turn import Turn as Turn

telemetry.switch_off()  # before any other module of labkit can import an engine

__version__: str
_PLACES = {
    name: module
    for module, names in {
        "labkit.audio.formats": "WIRE AudioFormat",
        "labkit.audio.pcm": "SAMPLE_RATE",
        "labkit.client.plain": "VoiceClient",
        "labkit.client.v1": "SessionClient",
        "labkit.errors": "LabkitError",
        "labkit.measure.experiment_figures": "exercise_figures",
        "labkit.measure.recordings": "recording",
        "labkit.notebook.bench": "Bench run_exercise",
        "labkit.notebook.cell": "play run show",
        "labkit.notebook.server": "start_labkit start_mine start_naive stop_servers",
        "labkit.notebook.turn": "SpokenTurn recordings say",
        "labkit.notebook.widgets": "ServerPanel",
        "labkit.server.app": "VoiceServer",
        "labkit.session.settings": "ServerSettings",
        "labkit.voice.hearing": "Utterance",
        "labkit.voice.history": "Exchange History",
        "labkit.voice.loading": "load_pipeline",
        "labkit.voice.models": "resolve",
        "labkit.voice.pipeline": "EchoPipeline",
        "labkit.voice.turn": "Sink Turn",
    }.items()
    for name in names.split()
}
"""Where each name comes from. Importing labkit loads none of them, so that it takes no time."""
__all__ = sorted(["__version__", *_PLACES])


def __getattr__(name: str) -> object:
    """Load what is asked for, once."""
    if name == "__version__":
        found = _version()
    elif name in _PLACES:
        found = getattr(import_module(_PLACES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def _version() -> str:
    # Only now: it takes longer than all else here, and comes before `labkit.__main__` can say
    # what Ctrl-C does.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("labkit")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0.0.0"


def __dir__() -> list[str]:
    return __all__
