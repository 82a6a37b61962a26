"""Where sessions wait: tokens, expiry, and room."""

from itertools import count

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from labkit.errors import ErrorCode, ProtocolError
from labkit.session.events import Caller
from labkit.session.registry import Lives, State

SECOND = 10**9


def lives(**options: float) -> Lives[str]:
    chosen = {"resume_s": 10.0, "max_detached": 3, **options}
    return Lives(**chosen)  # type: ignore[arg-type]


def test_a_session_is_resumed_with_its_token() -> None:
    this = lives()
    token = this.add("a", "A", Caller())
    this.detach("a", 0)
    assert this.find("a", token, None) == "A"
    assert this.resume("a", token, None) != token
    assert this.counts() == {State.ATTACHED: 1, State.DETACHED: 0}


def test_a_second_connection_takes_the_session_over() -> None:
    this = lives()
    token = this.add("a", "A", Caller())
    this.resume("a", token, None)
    assert this.counts() == {State.ATTACHED: 1, State.DETACHED: 0}


@pytest.mark.parametrize(
    ("session", "token", "identity"),
    [("a", "wrong", None), ("b", "right", None), ("a", "right", "eve"), ("a", "", None)],
)
def test_all_that_is_wrong_gets_one_answer(session: str, token: str, identity: str | None) -> None:
    this = lives(new_token=lambda: "right")
    this.add("a", "A", Caller())
    for use in (this.find, this.resume):
        with pytest.raises(ProtocolError, match="no such session to resume") as caught:
            use(session, token, identity)
        assert caught.value.code is ErrorCode.SESSION_UNKNOWN


def test_a_token_is_long_and_never_the_same() -> None:
    this = lives()
    tokens = {this.add(str(i), "", Caller()) for i in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 32


def test_the_previous_token_is_good_until_the_new_one_is_used() -> None:
    this = lives()
    first = this.add("a", "A", Caller())
    lost = this.resume("a", first, None)
    second = this.resume("a", first, None)
    assert lost != second
    third = this.resume("a", second, None)
    for old in (first, lost):
        with pytest.raises(ProtocolError):
            this.resume("a", old, None)
    assert this.resume("a", third, None)


def test_detached_sessions_expire_and_attached_ones_do_not() -> None:
    this = lives(resume_s=10.0)
    this.add("a", "A", Caller())
    this.add("b", "B", Caller())
    this.detach("a", 0)
    assert this.expire(10 * SECOND - 1) == []
    assert this.expire(10 * SECOND) == ["A"]
    assert this.counts() == {State.ATTACHED: 1, State.DETACHED: 0}


def test_the_one_that_waits_longest_makes_room() -> None:
    this = lives(max_detached=2)
    for number, name in enumerate("abc"):
        this.add(name, name.upper(), None)
        evicted = this.detach(name, number)
    assert evicted == ["A"]


def test_an_ended_session_is_unknown() -> None:
    this = lives()
    token = this.add("a", "A", Caller())
    this.end("a")
    with pytest.raises(ProtocolError):
        this.resume("a", token, None)


def test_who_leaves_many_behind_drives_out_nobody_else() -> None:
    this = lives(max_detached=3)
    this.add("mine", "mine", Caller("ann"))
    this.detach("mine", 0)
    gone = []
    for number in range(5):
        this.add(name := f"theirs {number}", name, Caller("bob"))
        gone += this.detach(name, number + 1)
    assert gone == ["theirs 0", "theirs 1", "theirs 2"]
    assert [this.evict() for _ in range(4)] == ["theirs 3", "mine", "theirs 4", None]


class Model(RuleBasedStateMachine):
    """Many sessions at once, against a model in a few dictionaries."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.store: Lives[str] = Lives(resume_s=5.0, max_detached=2)
        self.names = count()
        self.attached: set[str] = set()
        self.detached: dict[str, int] = {}
        self.good: dict[str, list[str]] = {}
        self.now_ns = 0

    @rule(target=sessions)
    def begin(self) -> str:
        name = f"s{next(self.names)}"
        self.good[name] = [self.store.add(name, name, Caller())]
        self.attached.add(name)
        return name

    @rule(name=sessions)
    def lose(self, name: str) -> None:
        if name not in self.attached:
            return
        self.attached.remove(name)
        self.detached[name] = self.now_ns
        evicted = self.store.detach(name, self.now_ns)
        for gone in evicted:
            assert self.detached.pop(gone) <= min(self.detached.values(), default=self.now_ns)

    @rule(name=sessions, which=st.integers(0, 1), lost=st.booleans())
    def resume(self, name: str, which: int, lost: bool) -> None:
        known = self.good[name]
        token = known[min(which, len(known) - 1)]
        if name not in self.attached and name not in self.detached:
            with pytest.raises(ProtocolError):
                self.store.resume(name, token, None)
            return
        assert self.store.find(name, token, None) == name
        fresh = self.store.resume(name, token, None)
        self.detached.pop(name, None)
        self.attached.add(name)
        self.good[name] = [token, fresh]

    @rule(name=sessions)
    def end(self, name: str) -> None:
        if name in self.attached or name in self.detached:
            self.store.end(name)
            self.attached.discard(name)
            self.detached.pop(name, None)

    @rule(seconds=st.integers(0, 4))
    def wait(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND
        due = {name for name, at in self.detached.items() if self.now_ns - at >= 5 * SECOND}
        assert set(self.store.expire(self.now_ns)) == due
        for name in due:
            del self.detached[name]

    @invariant()
    def the_counts_are_right(self) -> None:
        assert self.store.counts() == {
            State.ATTACHED: len(self.attached),
            State.DETACHED: len(self.detached),
        }

    @invariant()
    def few_wait(self) -> None:
        assert len(self.detached) <= 2


TestLives = Model.TestCase
