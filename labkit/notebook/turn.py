"""Say a recording to a server, and see and hear the turn.

A turn shows itself in a notebook: what was said, heard and answered, a player for each side, and
where the time went, to click and to hear from there. Everything is in the cell's output, which asks
nobody on the network for anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from labkit.audio.pcm import SAMPLE_RATE, Float32, read_audio, wav_file
from labkit.client.plain import VoiceClient
from labkit.client.turn import ClientTurn
from labkit.errors import LabkitError
from labkit.measure.recordings import Recording, load_manifest, recording
from labkit.measure.server_process import RunningServer
from labkit.notebook.cell import play, player, show
from labkit.notebook.server import as_server
from labkit.trace import Mark, Stage, Trace, largest_part

if TYPE_CHECKING:  # matplotlib takes a second to load, and only figures need it
    from matplotlib.axes import Axes

    from labkit.notebook.widgets import Timeline

_ROW: Final = 18
"""Height of a stage in the small waterfall, and its other measures, in pixels."""
_LABELS: Final = 150
_BARS: Final = 360
_WIDTH: Final = 600
_BAR_COLOUR: Final = "#0072B2"


def recordings() -> list[Recording]:
    """The recordings that come with the course.

    Raises:
        AudioError: They are not here.
    """
    return load_manifest()


async def say(
    what: Recording | str | Path, server: RunningServer | str, *, chunk_ms: float = 40.0
) -> "SpokenTurn":
    """Say a recording to a server at the pace of speech, and wait for the whole reply.

    Args:
        what: The recording, or what `labkit.recording` takes: its name, or the path of a file.
        server: The server, or its address.
        chunk_ms: Length of one message, in milliseconds.

    Raises:
        AudioError: There is no such recording, or it cannot be read.
        ServerError: `server` is none.
        ClientError: Nobody answers, or the connection was lost.
    """
    said = recording(what)
    samples = read_audio(said.path)
    one = as_server(server)
    with one.speaking_for_itself():
        async with VoiceClient.connect(one.url) as client:
            end = said.end_of_speech(samples)
            answer = await client.say(samples, chunk_ms=chunk_ms, end_of_speech=end)
    return SpokenTurn(said, samples[: answer.bytes_sent // 2], answer)


@dataclass(frozen=True, slots=True, repr=False)
class SpokenTurn:
    """One turn: what was said, what came back, and when.

    Attributes:
        recording: What was said.
        said_audio: What of it was sent, 16 kHz.
        answer: The turn as the client saw it.
    """

    recording: Recording
    said_audio: Float32
    answer: ClientTurn

    @property
    def said(self) -> str:
        """The words of the recording, or its name where nobody knows them."""
        return self.recording.text or self.recording.name

    @property
    def heard(self) -> str:
        """What the server understood; empty where it heard nothing."""
        return self.answer.transcript

    @property
    def reply(self) -> str:
        """The words of the reply."""
        return self.answer.reply_text

    @property
    def reply_audio(self) -> Float32:
        """The reply as it was spoken, 16 kHz."""
        return self.answer.reply

    @property
    def trace(self) -> Trace:
        """The marks of the turn."""
        return self.answer.trace

    def __repr__(self) -> str:
        """The same as `_repr_html_` in plain text, without the sound."""
        return "\n".join(f"{name:6} {text}" for name, text in self._lines())

    def _repr_html_(self) -> str:
        """What a page shows that runs no widgets."""
        stages = self.trace.stages_ms()
        return self._html(_small_waterfall(stages) if stages else "")

    def _ipython_display_(self) -> None:
        """What a notebook shows: a page that stays when the kernel ends, then the waterfall."""
        from IPython.display import display

        words = {"text/plain": repr(self), "text/html": self._html("")}
        display(words, raw=True)  # type: ignore[no-untyped-call]
        if self.trace.stages_ms():
            display(self.timeline())  # type: ignore[no-untyped-call]

    def _html(self, picture: str) -> str:
        said, heard, reply, *rest = self._lines()
        parts = [
            _line(*said) + player(self.said_audio, f"What was said: {self.said}"),
            _line(*heard),
            _line(*reply),
        ]
        if len(self.reply_audio):
            parts[-1] += player(self.reply_audio, f"The reply: {self.reply}")
        parts += [picture, *(_line(name, text) for name, text in rest)]
        return f'<section aria-label="One turn with the server">{"".join(parts)}</section>'

    def timeline(self) -> "Timeline":
        """The waterfall as a widget: each row is a button that plays the turn from there.

        Without clicking, `play_from` does the same.
        """
        from labkit.notebook.widgets import Timeline

        rows, stages = self._rows(), self.trace.stages_ms()
        bars = [row for row in rows if row["bar"]]
        return Timeline(
            _small_waterfall(stages),
            f"where the time went: {_in_words(stages)}",
            wav=wav_file(self.whole_audio),
            label=f"The whole turn. Said: {self.said}. Reply: {self.answer.reply_shown}",
            rows=rows,
            wait=(bars[0]["start"], bars[-1]["end"]),
        )

    def _rows(self) -> list[dict[str, Any]]:
        """The rows of the timeline: what was said, each stage of the wait, and the reply."""
        at_s = self._since_start_s(Mark.END_OF_SPEECH) or 0.0
        rows = [_row("said", self.said, 0.0, at_s)]
        for stage, span in self.trace.stages_ms().items():
            begin_s, at_s = at_s, at_s + max(span, 0.0) / 1000
            rows.append(_row(stage.label, f"{span:.0f} ms", begin_s, at_s, bar=True))
        if len(self.reply_audio):
            rows.append(_row("reply", self.answer.reply_shown, at_s, at_s))
        return rows

    @property
    def whole_audio(self) -> Float32:
        """The turn as the caller heard it, 16 kHz: what was said, the wait, and the reply."""
        at = round((self._since_start_s(Mark.FIRST_AUDIO_RECEIVED) or 0.0) * SAMPLE_RATE)
        reply = self.reply_audio if at else self.reply_audio[:0]
        whole = np.zeros(max(len(self.said_audio), at + len(reply)), np.float32)
        whole[: len(self.said_audio)] = self.said_audio
        whole[at : at + len(reply)] += reply
        return whole

    def audio_from(self, mark: str) -> Float32:
        """The turn from a mark on: what is left of what was said, the wait, and the reply.

        Args:
            mark: A `Mark` of its trace, such as ``"tts_first_audio"``.

        Raises:
            LabkitError: The turn has no such mark.
        """
        known = {known.value: at_ns for known, at_ns in self.trace.marks.items()}
        if (at_ns := known.get(mark)) is None:
            there = ", ".join(sorted(known, key=lambda one: known[one]))
            raise LabkitError(f"this turn has no mark {mark!r}; it has {there or 'none'}")
        begin_s = (at_ns - known.get(Mark.STREAM_STARTED, at_ns)) / 1e9
        return self.whole_audio[max(0, round(begin_s * SAMPLE_RATE)) :]

    def play_from(self, mark: str) -> None:
        """Show a player of `audio_from` that mark on; outside of notebooks, do nothing."""
        words = f"From {mark} on. Said: {self.said}. Reply: {self.answer.reply_shown}"
        play(self.audio_from(mark), words)

    def _lines(self) -> list[tuple[str, str]]:
        """What there is to say, each with its name."""
        spoken = f" ({_seconds(self.reply_audio)})" if len(self.reply_audio) else ""
        lines = [
            ("said", f"{self.said} ({_seconds(self.said_audio)})"),
            ("heard", self.heard or "(nothing)"),
            ("reply", self.answer.reply_shown + spoken),
        ]
        if (sentence := self._wait()) is not None:
            lines.append(("wait", sentence))
        lines += [("note", remark) for remark in self.answer.remarks]
        return lines + [("error", refusal) for refusal in self.answer.refusals]

    def _wait(self) -> str | None:
        total, stages = self.trace.ttfa_ms(), self.trace.stages_ms()
        if total is None or (largest := largest_part(stages)) is None:
            return None
        stage, share = largest
        return (
            f"{total:.0f} ms from the end of speech to the first sound of the reply; the longest "
            f"part: {stage.label}, {stages[stage]:.0f} ms, {100 * share:.0f} % of it"
        )

    def plot_waterfall(self, *, ax: "Axes | None" = None) -> "Axes":
        """Draw where the time went, from the end of speech to the first sound.

        Without `ax` it is a figure of its own, which a notebook shows.
        """
        from labkit.measure.figures import figure_of, plot_waterfall

        drawn = plot_waterfall(self.trace, ax=ax)
        if ax is None:
            alt = f"Waterfall of one turn. {_in_words(self.trace.stages_ms())}"
            show(figure_of(drawn), alt=alt)
        return drawn

    def plot_waveform(self, *, ax: "Axes | None" = None) -> "Axes":
        """Draw what was said, the silence after it, and the reply, on one axis of time.

        Without `ax` it is a figure of its own, which a notebook shows.
        """
        from labkit.measure.figures import BLUE, GREEN, figure_of, plot_waveform

        end_s = self._since_start_s(Mark.END_OF_SPEECH) or 0.0
        reply_s = self._since_start_s(Mark.FIRST_AUDIO_RECEIVED)
        said, reply = self.said_audio, self.reply_audio
        if reply_s is not None:
            reply = np.pad(reply, (round(reply_s * SAMPLE_RATE), 0))
            said = np.pad(said, (0, max(0, len(reply) - len(said))))
        heard_s = self._since_start_s(Mark.FIRST_AUDIO_HEARD)
        title = "No reply was heard"
        if heard_s is not None:
            title = f"{heard_s - end_s:.2f} s of dead air between the last word and the first sound"
        drawn = plot_waveform(
            said,
            SAMPLE_RATE,
            ax=ax,
            end_of_speech=round(end_s * SAMPLE_RATE) - 1,
            colour=BLUE,
            title=title,
        )
        drawn.text(0, -0.95, f"said: {self.said}", color=BLUE, fontsize=8)
        if reply_s is not None:
            plot_waveform(reply, SAMPLE_RATE, ax=drawn, colour=GREEN, title=title)
            drawn.text(reply_s, -0.95, f"reply: {self.reply}", color=GREEN, fontsize=8)
        if ax is None:
            show(figure_of(drawn), alt=f"Waveform of one turn: {title}. {self!r}")
        return drawn

    def _since_start_s(self, mark: Mark) -> float | None:
        since_ms = self.trace.between_ms(Mark.STREAM_STARTED, mark)
        return None if since_ms is None else since_ms / 1000


def _row(label: str, text: str, start: float, end: float, *, bar: bool = False) -> dict[str, Any]:
    return {"label": label, "text": text, "start": start, "end": end, "bar": bar}


def _seconds(samples: Float32) -> str:
    return f"{len(samples) / SAMPLE_RATE:.2f} s"


def _line(name: str, text: str) -> str:
    return f"<div><b>{name}</b> {escape(text)}</div>"


def _small_waterfall(stages: Mapping[Stage, float]) -> str:
    """The stages as bars under one another; name and time are written beside each."""
    scale = _BARS / max(sum(stages.values()), 1.0)
    rows, start = [], float(_LABELS)
    for row, (stage, span) in enumerate(stages.items()):
        top, width = row * _ROW, max(span * scale, 1.0)
        rows.append(
            f'<text x="{_LABELS - 6}" y="{top + 13}" text-anchor="end">{stage.label}</text>'
            f'<rect x="{start:.1f}" y="{top + 3}" width="{width:.1f}" height="{_ROW - 6}" '
            f'fill="{_BAR_COLOUR}"/>'
            f'<text x="{start + width + 5:.1f}" y="{top + 13}">{span:.0f} ms</text>'
        )
        start += max(span * scale, 0.0)
    return (
        f'<svg role="img" aria-label="Where the time went. {_in_words(stages)}" '
        f'viewBox="0 0 {_WIDTH} {len(stages) * _ROW}" width="{_WIDTH}" '
        f'style="max-width:100%" font-size="12" fill="currentColor">{"".join(rows)}</svg>'
    )


def _in_words(stages: Mapping[Stage, float]) -> str:
    return "; ".join(f"{stage.label}: {span:.0f} ms" for stage, span in stages.items()) + "."
