"""The replay window: against a model that keeps everything, under every sequence of steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from labkit.errors import ErrorCode, ProtocolError
from labkit.protocol.replay import Missing, Position, ReplayWindow

FRAME = 2


def at(messages: int, samples: int) -> Position:
    return Position(messages=messages, samples=samples)


def window(*, acknowledged: bool = True, max_bytes: int = 1000) -> ReplayWindow:
    return ReplayWindow(max_bytes=max_bytes, max_samples=1000, until_acknowledged=acknowledged)


def drain(this: ReplayWindow) -> list[str | bytes]:
    taken = []
    while (payload := this.take()) is not None:
        taken.append(payload)
    return taken


def test_messages_come_out_in_order_and_count() -> None:
    this = window()
    this.add_text("a")
    this.add_audio(b"1122", 2)
    this.add_text("b")
    assert drain(this) == ["a", b"1122", "b"]
    assert this.sent == this.end == at(2, 2)
    assert this.base == at(0, 0)


@pytest.mark.parametrize("acknowledged", [True, False])
def test_twice_as_much_as_there_is_room_for_is_too_much(acknowledged: bool) -> None:
    this = window(max_bytes=4, acknowledged=acknowledged)
    for text, full, overfull in (("abc", False, False), ("def", True, False), ("gh", True, True)):
        this.add_text(text)
        assert this.has_room is not full
        assert this.is_overfull is overfull


def test_audio_longer_than_all_room_leaves_room_for_text() -> None:
    this = window(max_bytes=4, acknowledged=False)
    this.add_audio(bytes(1000), 500)
    this.add_text("refused")
    assert not this.is_overfull
    this.add_text("b")
    assert this.is_overfull


def test_a_rewind_sends_again_what_lies_behind_the_position() -> None:
    this = window()
    this.add_text("a")
    this.add_audio(b"1122", 2)
    this.add_text("b")
    drain(this)
    assert this.rewind(at(1, 0)) is None
    assert drain(this) == [b"1122", "b"]


def test_a_rewind_into_a_piece_of_audio_sends_its_rest() -> None:
    this = window()
    this.add_audio(b"112233", 3)
    drain(this)
    assert this.rewind(at(0, 1)) is None
    assert drain(this) == [b"2233"]
    assert this.rewind(at(0, 0)) is None
    assert drain(this) == [b"11", b"2233"]


def test_what_was_acknowledged_is_forgotten_and_named_when_asked_for() -> None:
    this = window()
    for text in "abc":
        this.add_text(text)
    drain(this)
    this.acknowledge(at(2, 0))
    assert this.rewind(at(1, 0)) == Missing(after=at(1, 0), up_to=at(2, 0))
    assert drain(this) == ["c"]


def test_without_acknowledgements_the_oldest_makes_room() -> None:
    this = window(acknowledged=False, max_bytes=4)
    this.add_audio(b"1122", 2)
    assert not this.has_room
    this.take()
    assert this.has_room
    this.add_audio(b"3344", 2)
    assert this.base == at(0, 2)
    assert this.rewind(at(0, 0)) == Missing(after=at(0, 0), up_to=at(0, 2))


def test_with_acknowledgements_there_is_no_room_before_they_come() -> None:
    this = window(max_bytes=4)
    this.add_audio(b"1122", 2)
    this.take()
    assert not this.has_room
    this.acknowledge(at(0, 2))
    assert this.has_room


def test_seconds_of_audio_bound_it_too() -> None:
    this = ReplayWindow(max_bytes=10**6, max_samples=2, until_acknowledged=True)
    this.add_audio(b"1122", 2)
    assert not this.has_room


@pytest.mark.parametrize("position", [at(0, 3), at(2, 0), at(0, 1), at(1, 3)])
def test_a_position_that_was_never_reached_is_refused(position: Position) -> None:
    this = window()
    this.add_text("a")
    this.add_audio(b"1122", 2)
    drain(this)
    for use in (this.acknowledge, this.rewind, this.require):
        with pytest.raises(ProtocolError, match="was never sent") as caught:
            use(position)
        assert caught.value.code is ErrorCode.POSITION_INVALID
    assert this.sent == at(1, 2)


@pytest.mark.parametrize(("payload", "samples"), [(b"", -1), (b"123", 2), (b"12", 0)])
def test_audio_has_the_same_number_of_bytes_in_each_sample(payload: bytes, samples: int) -> None:
    with pytest.raises(ValueError, match="whole samples"):
        window().add_audio(payload, samples)


@given(st.lists(st.one_of(st.text(max_size=3), st.integers(1, 5)), max_size=20), st.data())
def test_every_position_on_the_way_can_be_gone_back_to(
    parts: list[str | int], data: st.DataObject
) -> None:
    this = window(max_bytes=10**6)
    stream: list[str | bytes] = []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            this.add_text(part)
            stream.append(part)
        else:
            payload = bytes([number]) * part * FRAME
            this.add_audio(payload, part)
            stream += [payload[i : i + FRAME] for i in range(0, len(payload), FRAME)]
    drain(this)
    cut = data.draw(st.integers(0, len(stream)))
    before = stream[:cut]
    texts = sum(isinstance(part, str) for part in before)
    assert this.rewind(at(texts, len(before) - texts)) is None
    assert flat(drain(this)) == stream[cut:]


def flat(messages: list[str | bytes]) -> list[str | bytes]:
    """Audio sample by sample: how it was cut into messages does not matter."""
    out: list[str | bytes] = []
    for message in messages:
        if isinstance(message, str):
            out.append(message)
        else:
            out += [message[i : i + FRAME] for i in range(0, len(message), FRAME)]
    return out


class Replay(RuleBasedStateMachine):
    """A sender with its window, a network that breaks, and a receiver that counts."""

    acknowledged = True

    def __init__(self) -> None:
        super().__init__()
        self.window = ReplayWindow(
            max_bytes=40, max_samples=12, until_acknowledged=self.acknowledged
        )
        self.produced: list[str | bytes] = []
        self.received: list[str | bytes] = []
        self.flying: list[str | bytes] = []
        self.lost = 0
        self.number = 0

    def position(self) -> Position:
        texts = sum(isinstance(part, str) for part in self.received)
        return at(texts, len(self.received) - texts + self.lost)

    @precondition(lambda self: self.window.has_room)
    @rule(samples=st.integers(1, 5))
    def speak(self, samples: int) -> None:
        self.number += 1
        payload = b"".join((self.number * 8 + i).to_bytes(FRAME, "big") for i in range(samples))
        self.window.add_audio(payload, samples)
        self.produced += flat([payload])

    @precondition(lambda self: self.window.has_room)
    @rule()
    def tell(self) -> None:
        self.number += 1
        self.window.add_text(f"{self.number}")
        self.produced.append(f"{self.number}")

    @rule()
    def send(self) -> None:
        payload = self.window.take()
        if payload is not None:
            self.flying.append(payload)

    @precondition(lambda self: self.flying)
    @rule()
    def arrive(self) -> None:
        self.received += flat([self.flying.pop(0)])

    @rule(samples=st.integers(0, 8))
    def take_back(self, samples: int) -> None:
        at_hand = len(self.received) + len(flat(self.flying))
        waiting, kept, left = self.produced[at_hand:], [], samples
        for part in reversed(waiting):
            if isinstance(part, bytes) and left:
                left -= 1
            else:
                kept.insert(0, part)
        assert self.window.take_back(samples) == samples - left
        self.produced[at_hand:] = kept

    @rule()
    def acknowledge(self) -> None:
        self.window.acknowledge(self.position())

    @rule()
    def cut_and_resume(self) -> None:
        self.flying.clear()
        assert self.window.rewind(self.position()) is None

    @invariant()
    def nothing_is_lost_or_repeated(self) -> None:
        assert self.received == self.produced[: len(self.received)]

    @invariant()
    def positions_are_in_order(self) -> None:
        assert self.window.end.reaches(self.window.sent)
        assert self.window.sent.reaches(self.window.base)

    @invariant()
    def the_bound_holds(self) -> None:
        assert self.window.held_bytes <= 40 + 5 * FRAME
        assert self.window.waiting_bytes <= self.window.held_bytes

    def teardown(self) -> None:
        """After a last resume everything arrives."""
        self.cut_and_resume()
        while self.window.waiting_bytes:
            self.send()
            self.arrive()
        assert self.received == self.produced


TestReplay = Replay.TestCase


class Forgetful(RuleBasedStateMachine):
    """Without acknowledgements: what is missing is named exactly, and the rest comes."""

    def __init__(self) -> None:
        super().__init__()
        self.window = ReplayWindow(max_bytes=20, max_samples=8, until_acknowledged=False)
        self.produced: list[bytes] = []
        self.have = 0

    @precondition(lambda self: self.window.has_room)
    @rule(samples=st.integers(1, 4))
    def speak(self, samples: int) -> None:
        first = len(self.produced)
        pieces = [(first + i).to_bytes(FRAME, "big") for i in range(samples)]
        self.window.add_audio(b"".join(pieces), samples)
        self.produced += pieces

    @rule(arrives=st.booleans())
    def send(self, arrives: bool) -> None:
        start = self.window.sent.samples
        payload = self.window.take()
        if payload is not None and arrives and start == self.have:
            self.have += len(payload) // FRAME

    @rule()
    def resume(self) -> None:
        missing = self.window.rewind(at(0, self.have))
        start = self.have if missing is None else missing.up_to.samples
        assert start == self.window.sent.samples
        if missing is not None:
            assert missing.after == at(0, self.have)
            assert start > self.have
        self.have = start

    @invariant()
    def what_is_held_is_the_end_of_what_was_produced(self) -> None:
        base = self.window.base.samples
        assert self.window.held_bytes == FRAME * (len(self.produced) - base)

    @invariant()
    def the_bound_holds(self) -> None:
        assert self.window.held_bytes <= 20 + 4 * FRAME


TestForgetful = Forgetful.TestCase
