"""What chapter 3 looks at and listens to: callers in other formats, and seams between chunks.

Each measurement gives plain numbers; each plot takes data in and gives `Axes` out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from labkit.audio.formats import AudioFormat, StreamEncoder
from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, read_audio
from labkit.client.plain import VoiceClient
from labkit.measure.recordings import Recording
from labkit.measure.server_process import RunningServer
from labkit.measure.wer import percent_right
from labkit.protocol import v1

if TYPE_CHECKING:  # matplotlib takes a second to load
    from matplotlib.axes import Axes

_CHUNK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Understood:
    """How well a server understood callers of one format.

    Attributes:
        form: The format.
        percent: Share of the words that were understood, in percent.
    """

    form: AudioFormat
    percent: float


def samples_of(said: Recording) -> Float32:
    """The samples of a recording, at 16 kHz."""
    return read_audio(said.path)


def percent_heard(said: Recording, heard: str) -> float:
    """Share of the words of a recording that are in what was heard, in percent."""
    return percent_right([(said.text, heard)])


def as_bytes(samples: Float32, form: AudioFormat) -> bytes:
    """What a caller of that format sends for these samples of 16 kHz."""
    encoder = StreamEncoder(form)
    return encoder.feed(samples) + encoder.flush()


async def ask_plain(server: RunningServer, audio: bytes) -> str:
    """Send these bytes in the plain dialect; gives the transcript."""
    async with VoiceClient.connect(server.url) as client:
        return (await client.say(decode_s16le(audio), pace=0)).transcript


async def measure_formats(
    server: RunningServer, said: Sequence[Recording], forms: Sequence[AudioFormat]
) -> list[Understood]:
    """Say some recordings over labkit.v1, in each format; gives how many words were understood."""
    found = []
    for form in forms:
        heard = [await _ask(server, as_bytes(read_audio(one.path), form), form) for one in said]
        pairs = zip((one.text for one in said), heard, strict=True)
        found.append(Understood(form, percent_right(pairs)))
    return found


async def _ask(server: RunningServer, audio: bytes, form: AudioFormat) -> str:
    size = form.samples(_CHUNK_S) * form.frame_bytes
    start = v1.SessionStart(input=v1.AudioSpec.of(form))
    async with connect(server.url, subprotocols=[Subprotocol(v1.SUBPROTOCOL)]) as socket:
        await socket.send(start.encode())
        for at in range(0, len(audio), size):
            await socket.send(audio[at : at + size])
        await socket.send(v1.AudioEnd().encode())
        async for message in socket:
            told = None if isinstance(message, bytes) else v1.decode_server(message)
            if isinstance(told, v1.TranscriptFinal):
                return told.text
    return ""


def below_db(samples: Float32, truth: Float32) -> float:
    """How far the difference lies below the sound itself, in dB; the more, the better."""
    size = min(len(samples), len(truth))
    off = samples[:size] - truth[:size]
    return float(10 * np.log10((truth[:size] ** 2).sum() / ((off**2).sum() + 1e-12)))


def plot_differences(
    made: Mapping[str, Float32],
    truth: Float32,
    *,
    start_s: float,
    seconds: float = 0.1,
    rate: int = SAMPLE_RATE,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw by how much each of some sounds differs from what it should be, over a short stretch.

    Args:
        made: The sounds by name.
        truth: What they should be.
        start_s: Where the stretch begins.
        seconds: How long it is.
        rate: Samples a second of all of them.
        ax: Draw here; without it, into a figure of its own.
    """
    from labkit.measure.figures import BLUE, GREY, RED, axes, tidy

    drawn = axes(ax, 7.0, 3.0)
    first, last = (round(at * rate) for at in (start_s, start_s + seconds))
    at_ms = np.arange(first, last) * 1000 / rate
    drawn.plot(at_ms, truth[first:last], color=GREY, linewidth=0.8, label="the sound")
    looks = ((RED, "-"), (BLUE, "--"))
    for (name, samples), (colour, style) in zip(made.items(), looks, strict=False):
        off = samples[first:last] - truth[first:last]
        drawn.plot(at_ms, off, style, color=colour, linewidth=1.4, label=f"off by: {name}")
    loudest = float(np.abs(truth[first:last]).max())
    drawn.set_ylim(-loudest, (1.5 + 0.3 * len(made)) * loudest)  # room for the legend above
    drawn.legend(frameon=False, loc="upper right")
    return tidy(drawn, "What resampling changed", "ms", "sample")


def plot_understood(found: Sequence[Understood], *, ax: "Axes | None" = None) -> "Axes":
    """Draw what each format costs, and how well its callers were understood."""
    from labkit.measure.figures import BLUE, ORANGE, axes, tidy

    drawn = axes(ax, 7.0, 2.6)
    at = np.arange(len(found))
    rates = [one.form.bytes_per_second / 1000 for one in found]
    bars = drawn.barh(at - 0.2, rates, 0.38, color=ORANGE, hatch="//", label="kB a second")
    drawn.bar_label(bars, fmt="%.0f kB/s", padding=3)
    percents = [one.percent for one in found]
    bars = drawn.barh(at + 0.2, percents, 0.38, color=BLUE, label="words understood, %")
    drawn.bar_label(bars, fmt="%.0f %%", padding=3)
    drawn.set_yticks(at, [str(one.form) for one in found])
    drawn.set_xlim(0, 220)  # room for the legend beside the bars
    drawn.invert_yaxis()
    drawn.legend(frameon=False, loc="center right")
    return tidy(drawn, "What a format costs, and what it keeps", "kB a second, or percent", "")


def plot_laws(laws: Mapping[str, Float32], *, ax: "Axes | None" = None) -> "Axes":
    """Draw what each byte of a law of G.711 stands for, in the order of their size."""
    from labkit.measure.figures import BLUE, RED, axes, tidy

    drawn = axes(ax, 7.0, 3.0)
    looks = ((BLUE, "-"), (RED, "--"))
    for (name, levels), (colour, style) in zip(laws.items(), looks, strict=False):
        steps = np.arange(256) - 128
        drawn.plot(steps, np.sort(levels), style, color=colour, label=name, linewidth=1.4)
    drawn.plot([-128, 127], [-1, 1], ":", color="#6E6E6E", label="8-bit integers")
    drawn.legend(frameon=False)
    return tidy(drawn, "What one byte stands for", "256 bytes, in order of size", "sample")
