"""The laboratory of chapter 4: a server behind a proxy that cuts, delays and holds up.

Each experiment takes a server in a process of its own, of any kind that speaks labkit.v1, and
gives a small object that says and draws what happened: data in, `Axes` out.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_high
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from labkit.audio.formats import AudioFormat
from labkit.audio.pcm import SAMPLE_RATE, Float32, decode_s16le, read_audio
from labkit.course.conversation import Conversation
from labkit.course.folder import mine
from labkit.course.hosting import hosted
from labkit.course.keep import assembled, kept_sections
from labkit.course.masters import cells, master_of, sections
from labkit.course.probe import MOST_FACTOR, Probe
from labkit.course.verdict import NotYet
from labkit.course.wire import samples_of as samples_of
from labkit.doctor import machine_factor
from labkit.errors import CloseCode, LabkitError
from labkit.measure.links import Conditions, Direction, Fault
from labkit.measure.netem import Proxy
from labkit.measure.networks import PROFILES
from labkit.measure.recordings import Recording
from labkit.measure.server_process import RunningServer
from labkit.measure.wer import percent_right

if TYPE_CHECKING:  # matplotlib takes a second to load
    from ipywidgets import Widget
    from matplotlib.axes import Axes

_OPENING: Final = 600
"""Bytes of the handshake and of `session.start`, about."""
_CHAPTER: Final = 4
_QUIET: Final = 0.1
_LAST_LINES: Final = 8
_WIDE: Final = AudioFormat(sample_rate=48_000)


def server_before() -> Path:
    """Write the server as it was before this chapter; gives its file.

    That is the learner's own, but for the sections that this chapter replaces: those are taken from
    the solution, so that a chapter that is run again begins where it began.
    """
    kept, solved = kept_sections(), sections(_CHAPTER - 1)
    replaced = {cell.marks.get("keep") for cell in cells(master_of(_CHAPTER))}
    own = {name: text for name, text in kept.items() if name in solved and name not in replaced}
    path = mine() / "server_before.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(assembled({**solved, **own}), encoding="utf-8")
    return path


@asynccontextmanager
async def _probe(server: RunningServer | str) -> AsyncIterator[Probe]:
    async with hosted(server) as target, AsyncExitStack() as stack:
        try:
            yield Probe(target, seed=4, factor=min(machine_factor(), MOST_FACTOR), stack=stack)
        except NotYet as fault:
            lines = [fault.observed, *(line.text for line in target.log()[-_LAST_LINES:])]
            raise NotYet(fault.expected, "\n".join(lines), event=fault.event) from fault


def _proxy(server: RunningServer, conditions: "list[Conditions]") -> Proxy:
    """The last of the conditions goes on for every further connection."""
    address = urlsplit(server.url)
    return Proxy(
        address.hostname or "localhost",
        address.port or 80,
        conditions=lambda number: conditions[min(number, len(conditions) - 1)],
    )


@dataclass(frozen=True, slots=True)
class Call:
    """A turn whose connection was cut.

    Attributes:
        direction: Which way the bytes went that were counted.
        after: Bytes until the cut; None where there was none.
        how: What became of the session.
        said: What was said.
        heard: What the server heard of it, in the end.
        reply_s: How much of the reply came.
        whole_s: How much of it there was; None where nobody told.
        back_ms: From the cut until the session went on, or a new one began.
    """

    direction: str
    after: int | None
    how: str
    said: str
    heard: str
    reply_s: float
    whole_s: float | None
    back_ms: float

    def through(self, whole_s: float) -> float:
        """Share of the words that were heard, or of a reply of `whole_s` that came, 0 to 1."""
        if self.direction == Direction.UP:
            return percent_right([(self.said, self.heard)]) / 100
        return self.reply_s / whole_s

    def __str__(self) -> str:
        """The call in two lines."""
        cut = "not cut"
        if self.after is not None:
            cut = f"cut after {self.after:,} bytes {self.direction}"
        then = f"; {self.how}, {self.back_ms:.0f} ms later" if self.how else ""
        return (
            f'{cut}{then}\n  said "{self.said}", heard "{self.heard}"; {self.reply_s:.1f} s of the '
            "reply came"
        )


async def cut_call(
    server: RunningServer,
    said: Recording,
    *,
    after: int | None,
    direction: str = "up",
    network: str = "lan",
) -> Call:
    """Say something over a connection that is cut; come back, and go on.

    Where the server cannot resume, the client does what is left to it: it begins a new session, and
    goes on with what it has not said yet.

    Args:
        server: The server.
        said: What is said.
        after: Bytes until the cut; None for a call that is left alone.
        direction: ``"up"`` counts what the client sends, ``"down"`` what the server sends.
        network: A profile of the network, such as ``"satellite"``.
    """
    way, through = Direction(direction), PROFILES[network].conditions
    cut = {way: replace(through[way], cut_after=after)}
    first = Conditions(cut.get(Direction.UP, through.up), cut.get(Direction.DOWN, through.down))
    async with _proxy(server, [first, through]) as proxy, _probe(server) as probe:
        talk = await Conversation.begin(probe, url=proxy.url())
        await talk.say(said)
        await talk.end()
        how, back_ms, heard = "", 0.0, ""
        if not await talk.take_in(1):
            lost_ns = time.perf_counter_ns()
            heard = talk.heard
            how, talk = await _go_on(probe, talk, proxy.url(), _left(said, way, after))
            back_ms = (time.perf_counter_ns() - lost_ns) / 1e6
            if how == "resumed" or way is Direction.UP:
                await talk.take_in(1)
        return Call(
            direction=way,
            after=after,
            how=how,
            said=said.text,
            heard=talk.heard or heard,
            reply_s=len(talk.came) / 2 / SAMPLE_RATE,
            whole_s=talk.done["samples"] / SAMPLE_RATE if talk.done else None,
            back_ms=back_ms,
        )


def _left(said: Recording, way: Direction, after: int | None) -> Float32:
    """What the client has not said yet, as it knows it: what did not go out."""
    samples = read_audio(said.path)
    return samples[max(0, (after or 0) - _OPENING) // 2 :] if way is Direction.UP else samples[:0]


async def _go_on(
    probe: Probe, talk: Conversation, url: str, left: Float32
) -> tuple[str, Conversation]:
    try:
        await talk.resume(url=url)
    except NotYet:  # there is no such session: what there is to do is to begin anew
        new = await Conversation.begin(probe, url=url)
        new.came += talk.came
        if len(left):
            await new.say(left)
            await new.end()
        return "a new session begun", new
    await talk.send_again()
    return "resumed", talk


def plot_calls(named: Mapping[str, Sequence[Call]], *, ax: "Axes | None" = None) -> "Axes":
    """Draw how much got through, over the byte of the cut, for one server or several.

    All say the same recording: where a reply broke off, the others know how long it usually is.
    """
    from labkit.measure.figures import BLUE, RED, axes, tidy

    drawn = axes(ax, 7.0, 3.4)
    known = [call.whole_s for calls in named.values() for call in calls if call.whole_s]
    usual_s = median_high(known) if known else 0.0  # one that misheard has another reply
    for (name, calls), colour in zip(named.items(), (RED, BLUE), strict=False):
        for way, marker, line in (("up", "^", "-"), ("down", "v", "--")):
            shown = sorted((call for call in calls if call.direction == way), key=_after)
            what = "words heard, cut upwards" if way == "up" else "reply received, cut downwards"
            drawn.plot(
                [_after(call) / 1000 for call in shown],
                [100 * call.through(call.whole_s or usual_s) for call in shown],
                line,
                marker=marker,
                color=colour,
                label=f"{name}: {what}",
            )
    drawn.set_ylim(-5, 108)
    drawn.legend(frameon=False, fontsize=8)
    return tidy(drawn, "What gets through a cut", "cut after, kB", "got through, %")


def _after(call: Call) -> int:
    return call.after or 0


async def say_floats(server: RunningServer, said: Recording) -> str:
    """Declare 16-bit integers and send floats; gives what the server makes of it."""
    async with _probe(server) as probe:
        talk = await Conversation.begin(probe)
        await talk.say_bytes(read_audio(said.path).astype("<f4").tobytes())
        await talk.end()
        told = await talk.until("response.done", errors=True)
    errors = [f"{one['code']}: {one['message']}" for one in told if one["type"] == "error"]
    return f'heard "{talk.heard}"; {"; ".join(errors) or "no error"}'


def misread_as_integers(said: Recording) -> Float32:
    """What a recording sounds like that is sent as floats and read as 16-bit integers; quieter."""
    return decode_s16le(read_audio(said.path).astype("<f4").tobytes()) * _QUIET


@dataclass(frozen=True, slots=True)
class Taken:
    """What a server sends to a client that acknowledges nothing.

    Attributes:
        asked: How many turns were asked for, each time.
        sent: Bytes of the replies that the server had sent by then.
    """

    asked: list[int]
    sent: list[int]


async def take_nothing(server: RunningServer, said: Recording, *, turns: int = 5) -> Taken:
    """Ask again and again, and acknowledge nothing; another caller has a turn each time."""
    async with _probe(server) as probe:
        slow = await Conversation.begin(probe, output=_WIDE, acknowledges=True)
        other = await Conversation.begin(probe)
        taken = Taken([0], [0])
        for number in range(1, turns + 1):
            await slow.say(said)
            await slow.end()
            for _ in range(2):  # as long as it takes to answer both
                await other.say(said)
                await other.end()
                await other.until("response.done")
            await slow.settle()
            taken.asked.append(number)
            taken.sent.append(len(slow.came))
    return taken


def plot_taken(named: Mapping[str, Taken], *, ax: "Axes | None" = None) -> "Axes":
    """Draw what was sent and not acknowledged, over the turns that were asked for."""
    from labkit.measure.figures import AFTER, BEFORE, axes, tidy

    drawn = axes(ax, 7.0, 3.0)
    for (name, taken), look in zip(named.items(), (BEFORE, AFTER), strict=False):
        sent = [size / 1024 for size in taken.sent]
        style = look.style + look.marker
        drawn.plot(taken.asked, sent, style, color=look.colour, label=name)
    drawn.legend(frameon=False)
    return tidy(drawn, "A client that acknowledges nothing", "turns asked for", "KiB sent to it")


@dataclass(frozen=True, slots=True)
class Crowd:
    """Callers who came, spoke, and went away without a word.

    Attributes:
        refused: How many were refused, and told so.
        at_s: When the server was asked how much it holds, from when the last had gone.
        sessions: How many sessions it held; `held` how many bytes of audio.
        held: Bytes of audio that it held.
    """

    refused: int
    at_s: list[float]
    sessions: list[int]
    held: list[int]


async def leave_alone(
    server: RunningServer, said: Recording, *, callers: int = 80, watch_s: float = 10.0
) -> Crowd:
    """Let callers speak without an end to their utterance, and leave their network.

    Nobody is told: the proxy swallows everything from then on, as a network that is gone does.

    Args:
        server: The server.
        said: What each of them says.
        callers: How many come, one after the other.
        watch_s: How long its sessions are counted afterwards; less where none is left.
    """
    refused, crowd, talks = 0, Crowd(0, [], [], []), list[Conversation]()
    async with _proxy(server, [Conditions()]) as proxy, _probe(server) as probe:
        for _ in range(callers):
            try:
                talk = await Conversation.begin(probe, url=proxy.url())
            except NotYet as fault:
                if str(CloseCode.INTERNAL_ERROR.value) in fault.observed:
                    raise  # it failed, which is no refusal
                refused += 1
                continue
            talks.append(talk)
            await talk.say(said)
            await talk.settle()
        began_s = time.monotonic()
        proxy.cut(Fault.HALF_OPEN)
        while (at_s := time.monotonic() - began_s) < watch_s:
            told = await asyncio.to_thread(server.status)
            crowd.at_s.append(at_s)
            crowd.sessions.append(told.session_count)
            crowd.held.append(told.held_bytes or 0)
            if not told.session_count:
                break
            await asyncio.sleep(0.25)
        for talk in talks:
            talk.caller.drop()  # or each would wait for a goodbye that cannot come
    return Crowd(refused, crowd.at_s, crowd.sessions, crowd.held)


def plot_crowd(named: Mapping[str, Crowd], *, ax: "Axes | None" = None) -> "Axes":
    """Draw how many sessions a server holds, after all of its callers have gone."""
    from labkit.measure.figures import AFTER, BEFORE, axes, tidy

    drawn = axes(ax, 7.0, 3.0)
    for (name, crowd), look in zip(named.items(), (BEFORE, AFTER), strict=False):
        counted = (crowd.at_s, crowd.sessions, look.style)
        drawn.step(*counted, where="post", color=look.colour, label=name)
    drawn.set_ylim(bottom=0)
    drawn.legend(frameon=False)
    return tidy(drawn, "Sessions of callers who are gone", "s after they have gone", "sessions")


async def kill(
    server: RunningServer, start: Callable[[], Awaitable[RunningServer]], said: Recording
) -> str:
    """Kill a server in the middle of an utterance, start it again, and come back to it.

    Args:
        server: The server.
        start: Starts it again.
        said: What is said.
    """
    async with _probe(server) as probe:
        talk = await Conversation.begin(probe)
        await talk.say(said)
        await talk.settle()
        assert server.process is not None
        server.process.kill()
        new = await start()
        try:
            await talk.resume(url=new.url)
        except NotYet as refused:
            lost = _told(probe, refused)
        else:
            lost = "nothing"
    async with _probe(new) as probe:
        again = await Conversation.begin(probe)
        await again.say(talk.sent_audio)
        await again.end()
        await again.until("response.done")
    return f'resume: {lost}\nsaid again in a new session: "{again.heard}"'


def _told(probe: Probe, refused: NotYet) -> str:
    payload = None if refused.event is None else probe.events[refused.event].payload
    with suppress(TypeError, ValueError, KeyError):  # it may be anything
        told = json.loads(payload or "")
        return f"{told['code']}: {told['message']}"
    return refused.observed


def bench(server: RunningServer, said: Recording, calls: Sequence[Call] = ()) -> "Widget":
    """Sliders that cut a call, and a figure of all cuts; `cut_call` and `plot_calls` do the same.

    Args:
        server: The server.
        said: What is said.
        calls: Calls that were cut before, which are drawn as well.
    """
    from ipywidgets import HTML, Button, Dropdown, IntSlider, VBox

    from labkit.course.aloud import Aloud

    wide = {"style": {"description_width": "initial"}, "layout": {"width": "420px"}}
    direction = Dropdown(options=["up", "down"], description="Direction", **wide)
    after = IntSlider(20_000, 3_000, 70_000, 1_000, description="Bytes until the cut", **wide)
    network = Dropdown(options=list(PROFILES), value="lan", description="Network", **wide)
    button = Button(description="Cut", tooltip="Say the recording, and cut the connection")
    told, drawn = Aloud("nothing was cut yet"), HTML()
    loop, working, all_calls = asyncio.get_running_loop(), set[asyncio.Task[None]](), list(calls)

    async def cut() -> None:
        told.text = "Saying it…"
        try:
            call = await cut_call(
                server, said, after=after.value, direction=direction.value, network=network.value
            )
            told.text = str(call)
            all_calls.append(call)
            drawn.value = _image(all_calls)
        except (NotYet, LabkitError) as fault:
            told.text = str(fault)

    def start() -> None:
        if not working:  # a button that was disabled meanwhile would lose the keyboard's focus
            task = loop.create_task(cut())
            working.add(task)
            task.add_done_callback(working.discard)

    button.on_click(lambda _: loop.call_soon_threadsafe(start))
    drawn.value = _image(all_calls)
    return VBox([direction, after, network, button, told, drawn])


def _image(calls: Sequence[Call]) -> str:
    """The figure of calls that were cut; nothing until one has told how long a reply is."""
    from labkit.measure.figures import figure_of, image_html

    if not any(call.whole_s for call in calls):
        return ""
    lines = "; ".join(str(call) for call in calls)
    return image_html(figure_of(plot_calls({"cut": calls})), f"What gets through a cut. {lines}")
