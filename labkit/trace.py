"""The marks of one turn, and the only definitions of what is measured from them.

A mark is an instant on the monotonic clock (`time.perf_counter_ns`). Client and server of one
machine share that clock; a trace from two machines carries the offset between their clocks.

The end-to-end latency is *end of speech → first reply audio at the client* (TTFB). Its parts
telescope over consecutive marks, so they add up to the total exactly::

    end_of_speech ─ packetisation ─► end_stream_sent ─ uplink ─► end_stream_received
      ─ asr ─► asr_done ─ llm_first_token ─► llm_first_token ─ llm_first_sentence ─►
    llm_first_sentence ─ tts_first_audio ─► tts_first_audio ─ downlink ─► first_audio_received

TTFA adds the silence that the reply begins with. Where the server decides that the speaker is
through, nobody asks, and the first parts are one, the dead air::

    end_of_speech ─ dead_air ─► end_stream_received ─ asr ─► …
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

_NS_PER_MS = 1e6


class Mark(StrEnum):
    """An instant of one turn. The first four and the last four are the client's."""

    STREAM_STARTED = "stream_started"
    """The microphone opened: sample 0 of the utterance."""
    END_OF_SPEECH = "end_of_speech"
    """The last voiced sample was spoken (by the recording's annotation, or by its energy)."""
    LAST_CHUNK_SENT = "last_chunk_sent"
    """The chunk that holds the end of speech went out."""
    END_STREAM_SENT = "end_stream_sent"
    """The client asked for its answer."""

    END_STREAM_RECEIVED = "end_stream_received"
    """The server read the request for the answer, or decided that the speaker is through."""
    ASR_STARTED = "asr_started"
    """The recogniser began (after the voice activity detector and the queue)."""
    ASR_DONE = "asr_done"
    """The transcript was final."""
    LLM_FIRST_TOKEN = "llm_first_token"
    """The language model gave its first piece of text."""
    LLM_FIRST_SENTENCE = "llm_first_sentence"
    """The first sentence of the reply was whole."""
    LLM_DONE = "llm_done"
    """The reply's text was whole."""
    TTS_FIRST_AUDIO = "tts_first_audio"
    """The first samples were synthesised, and enough to follow them."""
    TTS_DONE = "tts_done"
    """All of the reply was synthesised."""

    TRANSCRIPT_RECEIVED = "transcript_received"
    """The transcript reached the client."""
    FIRST_AUDIO_RECEIVED = "first_audio_received"
    """The first byte of reply audio reached the client."""
    FIRST_AUDIO_HEARD = "first_audio_heard"
    """The first audible sample of the reply could play: the leading silence is over."""
    REPLY_RECEIVED = "reply_received"
    """All of the reply reached the client."""


SERVER_MARKS: Final = tuple(Mark)[4:-4]
"""The marks that only a server can set, in the order of the turn."""


class Stage(StrEnum):
    """A part of the end-to-end latency. Files name it by its value, all else by its `label`."""

    PACKETISATION = "packetisation"
    """Waiting for the last chunk to fill and go out."""
    UPLINK = "uplink"
    """From the client's socket to the server's handler."""
    DEAD_AIR = "dead_air"
    """From the last word until it is decided that it was the last: chunk, way, and silence."""
    ASR = "asr"
    """Voice activity, the queue, and recognition."""
    LLM_FIRST_TOKEN = "llm_first_token"
    """Reading the prompt, up to the first token of the reply."""
    LLM_FIRST_SENTENCE = "llm_first_sentence"
    """From the first token to the first whole sentence."""
    TTS_FIRST_AUDIO = "tts_first_audio"
    """Synthesis of the first samples."""
    DOWNLINK = "downlink"
    """From the synthesiser to the client."""
    LEADING_SILENCE = "leading_silence"
    """From the first sample of the reply to the first that can be heard."""
    UNTOLD = "untold"
    """What lies between no two marks that are known: the whole wait less the parts above."""

    @property
    def label(self) -> str:
        """What figures, tables and sentences call it, such as "LLM first token"."""
        if self is Stage.UNTOLD:
            return "not told by the server"
        words = self.value.split("_")
        return " ".join(w.upper() if w in ("asr", "llm", "tts") else w for w in words)


STAGES: Mapping[Stage, tuple[Mark, Mark]] = MappingProxyType(
    {
        Stage.PACKETISATION: (Mark.END_OF_SPEECH, Mark.END_STREAM_SENT),
        Stage.UPLINK: (Mark.END_STREAM_SENT, Mark.END_STREAM_RECEIVED),
        Stage.ASR: (Mark.END_STREAM_RECEIVED, Mark.ASR_DONE),
        Stage.LLM_FIRST_TOKEN: (Mark.ASR_DONE, Mark.LLM_FIRST_TOKEN),
        Stage.LLM_FIRST_SENTENCE: (Mark.LLM_FIRST_TOKEN, Mark.LLM_FIRST_SENTENCE),
        Stage.TTS_FIRST_AUDIO: (Mark.LLM_FIRST_SENTENCE, Mark.TTS_FIRST_AUDIO),
        Stage.DOWNLINK: (Mark.TTS_FIRST_AUDIO, Mark.FIRST_AUDIO_RECEIVED),
        Stage.LEADING_SILENCE: (Mark.FIRST_AUDIO_RECEIVED, Mark.FIRST_AUDIO_HEARD),
    }
)
"""Each stage of a turn whose client asks, with the two marks that it lies between, in order.

They follow one another without a gap, so together they are the TTFA. `Stage.UNTOLD` lies between
no two marks.
"""

DECIDED_STAGES: Mapping[Stage, tuple[Mark, Mark]] = MappingProxyType(
    {
        Stage.DEAD_AIR: (Mark.END_OF_SPEECH, Mark.END_STREAM_RECEIVED),
        **dict(list(STAGES.items())[2:]),
    }
)
"""The same of a turn whose end the server decides."""

_SLACK_MS: Final = 2.0
"""So much may two sides of one clock disagree: a mark is set shortly after what it marks."""


@dataclass(slots=True)
class Trace:
    """The marks of one turn, in nanoseconds of one monotonic clock.

    Marks are write-once: the first instant is the one that is kept, so that a repeated event
    (a second token, a second sentence) does not move the mark of the first.

    Attributes:
        marks: When it was, by mark.
        ahead: Where marks were that were set before anybody waited; see `wait_from`.
        tokens: Pieces of text that the language model gave.
    """

    marks: dict[Mark, int] = field(default_factory=dict)
    ahead: dict[Mark, int] = field(default_factory=dict)
    tokens: int = 0

    def wait_from(self, at_ns: int) -> None:
        """Somebody waits for the answer from here on: what was marked before was done ahead.

        No part of the wait lies before it begins, so earlier marks move here; where they were is
        kept in `ahead`.
        """
        # In place, for an engine's thread may set a mark at this moment.
        for mark, was_ns in list(self.marks.items()):
            if was_ns < at_ns:
                self.ahead[mark] = was_ns
                self.marks[mark] = at_ns
        self.mark(Mark.END_STREAM_RECEIVED, at_ns)

    def ahead_spans(self) -> dict[Stage, tuple[int, int]]:
        """When each stage ran that began before anybody waited; one that ran on, until then.

        One whose end is not known is left out.
        """
        edges = (Mark.ASR_STARTED, *(end for _, end in list(DECIDED_STAGES.values())[1:5]))
        begun = zip(list(DECIDED_STAGES)[1:5], edges, edges[1:], strict=False)
        waited_ns = self.marks.get(Mark.END_STREAM_RECEIVED)
        return {
            stage: (self.ahead[start], end_ns)
            for stage, start, end in begun
            if start in self.ahead and (end_ns := self.ahead.get(end, waited_ns)) is not None
        }

    def ahead_ms(self) -> dict[Stage, tuple[float, float]]:
        """The same in milliseconds since the end of speech; empty where that is not known."""
        if (zero_ns := self.marks.get(Mark.END_OF_SPEECH)) is None:
            return {}
        return {
            stage: ((start - zero_ns) / _NS_PER_MS, (end - zero_ns) / _NS_PER_MS)
            for stage, (start, end) in self.ahead_spans().items()
        }

    def mark(self, mark: Mark, at_ns: int) -> None:
        """Set `mark` to `at_ns`, unless it is set already."""
        self.marks.setdefault(mark, at_ns)

    def merge(self, marks: Mapping[Mark, int], offset_ns: int = 0) -> None:
        """Take over the other side's marks.

        Args:
            marks: Marks on the other side's clock.
            offset_ns: That clock minus this one: 0 on one machine.
        """
        for mark, at_ns in marks.items():
            self.mark(mark, at_ns - offset_ns)

    def between_ms(self, start: Mark, end: Mark) -> float | None:
        """Milliseconds from `start` to `end`, or None where either mark is not set."""
        if start not in self.marks or end not in self.marks:
            return None
        return (self.marks[end] - self.marks[start]) / _NS_PER_MS

    def ttfb_ms(self) -> float | None:
        """End of speech → first reply audio at the client."""
        return self.between_ms(Mark.END_OF_SPEECH, Mark.FIRST_AUDIO_RECEIVED)

    def ttfa_ms(self) -> float | None:
        """End of speech → first audible sample: TTFB plus the reply's leading silence."""
        return self.between_ms(Mark.END_OF_SPEECH, Mark.FIRST_AUDIO_HEARD)

    @property
    def stages(self) -> Mapping[Stage, tuple[Mark, Mark]]:
        """The stages that a turn of this kind has."""
        return STAGES if Mark.END_STREAM_SENT in self.marks else DECIDED_STAGES

    def stages_ms(self) -> dict[Stage, float]:
        """Every stage whose two marks are set, in the order of the turn.

        Where the whole wait is known and some of its parts are not, `Stage.UNTOLD` is what they
        take together, in the place of the first of them: the spans add up to `ttfa_ms`.
        """
        spans = {stage: self.between_ms(*ends) for stage, ends in self.stages.items()}
        known = {stage: span for stage, span in spans.items() if span is not None}
        total = self.ttfa_ms()
        if total is None or len(known) == len(spans):
            return known
        place = next(i for i, span in enumerate(spans.values()) if span is None)
        parts = list(known.items())
        parts.insert(place, (Stage.UNTOLD, total - sum(known.values())))
        return dict(parts)


def chrome_events(*traces: Trace) -> list[dict[str, object]]:
    """Turns as events that Chrome's tracing page and Perfetto draw (Trace Event Format, Google).

    A turn is a process of theirs. One row has the stages, the next one every mark, and a third
    what was done ahead of the wait.

    Args:
        traces: The turns, of one clock; their first mark is the time 0.
    """
    told = [trace for trace in traces if trace.marks]
    firsts = [min([*trace.marks.values(), *trace.ahead.values()]) for trace in told]
    return [
        event
        for number, trace in enumerate(told, start=1)
        for event in _turn_events(trace, number, min(firsts))
    ]


def _turn_events(trace: Trace, number: int, zero_ns: int) -> list[dict[str, object]]:
    def event(name: str, row: int, at_ns: int, **more: object) -> dict[str, object]:
        return {"name": name, "pid": number, "tid": row, "ts": (at_ns - zero_ns) / 1e3, **more}

    found = [
        event(stage.label, 1, trace.marks[start], ph="X", dur=span * 1e3)
        for stage, (start, end) in trace.stages.items()
        if (span := trace.between_ms(start, end)) is not None
    ]
    found += [event(mark.value, 2, at, ph="i", s="t") for mark, at in trace.marks.items()]
    found += [
        event(stage.label, 3, start, ph="X", dur=(end - start) / 1e3)
        for stage, (start, end) in trace.ahead_spans().items()
    ]
    named = {"ph": "M", "pid": number}
    rows = ((1, "stages"), (2, "marks"), (3, "ahead of the wait"))
    return [
        *found,
        {"name": "process_name", **named, "args": {"name": f"turn {number}"}},
        *(
            {"name": "thread_name", **named, "tid": row, "args": {"name": name}}
            for row, name in rows
        ),
    ]


def wrong_parts(stages_ms: Mapping[Stage, float], ttfa_ms: float | None) -> str:
    """What is wrong with the parts of a wait, in words; empty where they can be believed.

    No part is negative, and together they are the whole wait, within 2 ms. Otherwise a mark is of
    another turn, or of another clock.
    """
    for stage, span in stages_ms.items():
        if span < -_SLACK_MS:
            return f"{stage.label} takes {span:.1f} ms"
    total = sum(stages_ms.values())
    if ttfa_ms is not None and abs(total - ttfa_ms) > _SLACK_MS:
        return f"the parts of the wait add up to {total:.1f} ms of {ttfa_ms:.1f}"
    return ""


def largest_part(stages_ms: Mapping[Stage, float]) -> tuple[Stage, float] | None:
    """The longest stage and its share of the whole wait, from 0 to 1; None where nobody waited."""
    total = sum(stages_ms.values())
    if total <= 0:
        return None
    longest = max(stages_ms, key=lambda stage: stages_ms[stage])
    return longest, stages_ms[longest] / total
