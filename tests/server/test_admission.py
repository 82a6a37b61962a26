"""Who may come in: the rules, without sockets."""

from collections.abc import Sequence
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labkit.errors import ServerError, TokenError
from labkit.server.admission import (
    BEARER_PREFIX,
    Access,
    Places,
    Refusal,
    require_safe,
    room,
    warnings_about,
)
from labkit.session.events import Caller
from labkit.session.settings import ServerSettings

ONE = "one-token-of-sixteen"
TWO = "two_token_of_sixteen"
BOTH = ServerSettings(tokens=(ONE, TWO))
OPEN = ServerSettings()
OUTSIDE = "203.0.113.7"


class Headers:
    """Headers that may hold what no library would let through."""

    def __init__(self, lines: Sequence[tuple[str, str]]) -> None:
        self._lines = lines

    def get_all(self, key: str) -> list[str]:
        return [value for name, value in self._lines if name.lower() == key.lower()]


def identify(
    settings: ServerSettings, *headers: tuple[str, str], path: str = "/", address: str = OUTSIDE
) -> Caller | Refusal:
    return Access(settings).identify(path, Headers(headers), address)


def status(verdict: Caller | Refusal | None) -> int | None:
    return verdict.status.value if isinstance(verdict, Refusal) else None


def identity_of(token: str) -> str:
    return sha256(token.encode()).hexdigest()[:16]


# Tokens


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Authorization", f"Bearer {TWO}"),
        ("authorization", f"bearer   {TWO} "),
        ("Sec-WebSocket-Protocol", f"labkit.v1, {BEARER_PREFIX}{TWO}"),
        ("Sec-WebSocket-Protocol", f"{BEARER_PREFIX}{TWO},labkit.v1"),
    ],
)
def test_a_known_token_lets_in_and_its_hash_says_who_it_is(header: str, value: str) -> None:
    assert identify(BOTH, (header, value)) == Caller(identity_of(TWO), OUTSIDE)


def test_a_token_may_come_in_a_second_header() -> None:
    found = identify(
        BOTH,
        ("Sec-WebSocket-Protocol", "labkit.v1"),
        ("Sec-WebSocket-Protocol", f"{BEARER_PREFIX}{ONE}"),
    )
    assert found == Caller(identity_of(ONE), OUTSIDE)


def test_every_token_is_somebody_else() -> None:
    assert identity_of(ONE) != identity_of(TWO)
    assert ONE not in identity_of(ONE)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer another-token-of-sixteen")],
        [("Authorization", f"Bearer {ONE}x")],
        [("Authorization", f"Bearer {ONE[:-1]}")],
        [("Authorization", f"Bearer {ONE.upper()}")],
        [("Authorization", f"Basic {ONE}")],
        [("Authorization", ONE)],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", "")],
        [("Authorization", f"Bearer {ONE} {TWO}")],
        [("Authorization", "Bearer \udcff\udcfe")],
        [("Cookie", f"token={ONE}")],
        [("Sec-WebSocket-Protocol", "labkit.v1")],
        [("Sec-WebSocket-Protocol", ONE)],
        [("Sec-WebSocket-Protocol", BEARER_PREFIX)],
        [("Sec-WebSocket-Protocol", f"{BEARER_PREFIX}{ONE} {TWO}")],
    ],
)
def test_without_a_known_token_nobody_comes_in(headers: list[tuple[str, str]]) -> None:
    refusal = identify(BOTH, *headers)
    assert status(refusal) == 401
    assert isinstance(refusal, Refusal)
    assert refusal.retry_s is None


def test_where_no_token_is_configured_none_is_looked_at() -> None:
    assert identify(OPEN, ("Authorization", "Bearer nonsense")) == Caller(None, OUTSIDE)


@pytest.mark.parametrize("settings", [OPEN, BOTH])
@pytest.mark.parametrize(
    "path",
    [
        f"/?token={ONE}",
        f"/?reply=stream&access_token={ONE}",
        "/?token",
        "/?token=",
        f"/?Token={ONE}",
        f"/?%74oken={ONE}",
        f"/metrics?token={ONE}",
    ],
)
def test_a_token_in_the_address_is_refused_with_a_hint(settings: ServerSettings, path: str) -> None:
    refusal = identify(settings, ("Authorization", f"Bearer {ONE}"), path=path)
    assert isinstance(refusal, Refusal)
    assert refusal.status is HTTPStatus.BAD_REQUEST
    assert "Authorization: Bearer TOKEN" in refusal.reason
    assert ONE not in refusal.reason


@pytest.mark.parametrize("path", ["/?reply=stream", "/?tokens=1", "/?x=token", "/token", "/?"])
def test_other_addresses_hold_no_token(path: str) -> None:
    assert identify(OPEN, path=path) == Caller(None, OUTSIDE)


# Pages


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/readyz?verbose"])
def test_health_needs_no_token(path: str) -> None:
    assert identify(BOTH, path=path) == Caller(None, OUTSIDE)


@pytest.mark.parametrize("address", [OUTSIDE, "127.0.0.1", "::1", ""])
@pytest.mark.parametrize("path", ["/metrics", "/schema.json", "/healthz/", "//healthz", "/", ""])
def test_every_other_page_needs_one_wherever_the_caller_is(path: str, address: str) -> None:
    assert status(identify(BOTH, path=path, address=address)) == 401
    shown = identify(BOTH, ("Authorization", f"Bearer {ONE}"), path=path, address=address)
    assert isinstance(shown, Caller)


# Origins


def of_origin(
    origin: str, host: str = "192.168.1.5:8765", settings: ServerSettings = OPEN
) -> int | None:
    shown = [("Authorization", f"Bearer {settings.tokens[0]}")] if settings.tokens else []
    return status(identify(settings, ("Origin", origin), ("Host", host), *shown))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://192.168.1.5:8765", "192.168.1.5:8765"),
        ("https://192.168.1.5:8765", "192.168.1.5:8765"),
        ("https://192.168.1.5", "192.168.1.5"),
        ("https://192.168.1.5", "192.168.1.5:443"),
        ("http://192.168.1.5", "192.168.1.5:80"),
        ("http://[2001:DB8::1]:8765", "[2001:db8::1]:8765"),
        ("http://localhost", "box:8765"),
        ("http://localhost:8888", "box:8765"),
        ("https://127.0.0.1:3000", "box:8765"),
        ("http://[::1]:3000", "box:8765"),
        ("http://LOCALHOST:1", "box:8765"),
    ],
)
def test_own_pages_and_those_of_the_callers_machine_may_call(origin: str, host: str) -> None:
    assert of_origin(origin, host) is None


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        " ",
        "*",
        "http://evil.example",
        "http://evil.example:8765",
        "http://192.168.1.5",
        "http://192.168.1.5:8766",
        "http://192.168.1.5.evil.example:8765",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://evil.example/http://localhost",
        "http://localhost@evil.example",
        "http://evil.example#localhost",
        "http://localhost/",
        "http://localhost:port",
        "http://localhost:123456",
        "http://localhost evil",
        "http://localhost, http://localhost",
        "localhost",
        "//localhost",
        "http://",
        "http://[",
        "http://[::1",
        "http://]",
        "file://",
        "ftp://localhost",
        "chrome-extension://localhost",
        "http://\udcff",
        "http://localhost\n",
        "http://\u212aocalhost",
        "http://127.1",
        "http://2130706433",
    ],
)
def test_pages_of_other_origins_may_not_call(origin: str) -> None:
    assert of_origin(origin) == 403
    assert of_origin(origin, settings=BOTH) == 403


def test_what_is_no_browser_sends_no_origin() -> None:
    assert identify(OPEN) == Caller(None, OUTSIDE)


def test_two_origins_or_two_hosts_are_none() -> None:
    mine = ("Origin", "http://10.0.0.1")
    assert status(identify(OPEN, mine, mine, ("Host", "10.0.0.1"))) == 403
    hosts = [("Host", "10.0.0.1"), ("Host", "10.0.0.1")]
    assert status(identify(OPEN, mine, *hosts)) == 403
    assert status(identify(OPEN, mine)) == 403


def test_a_name_that_was_made_to_mean_this_machine_is_not_its_own() -> None:
    assert of_origin("http://evil.example:8765", "evil.example:8765") == 403


def test_a_name_is_its_own_where_a_token_is_asked_for() -> None:
    assert of_origin("https://voice.example", "voice.example", BOTH) is None
    assert of_origin("https://voice.example", "other.example", BOTH) == 403
    assert of_origin("https://voice.example", "voice.example:x", BOTH) == 403


@pytest.mark.parametrize(
    ("origin", "verdict"),
    [
        ("https://voice.example", None),
        ("https://VOICE.example:443", None),
        ("http://10.0.0.9:8000", None),
        ("chrome-extension://abcdef", None),
        ("http://voice.example", 403),
        ("https://voice.example:444", 403),
        ("https://a.voice.example", 403),
    ],
)
def test_origins_may_be_allowed(origin: str, verdict: int | None) -> None:
    allowed = ("https://voice.example", "http://10.0.0.9:8000", "chrome-extension://abcdef")
    assert (
        of_origin(origin, settings=OPEN.model_copy(update={"allowed_origins": allowed})) == verdict
    )


def test_a_foreign_page_learns_nothing_of_tokens() -> None:
    evil = ("Origin", "http://evil.example")
    known = ("Authorization", f"Bearer {ONE}")
    assert identify(BOTH, evil) == identify(BOTH, evil, known)


# Places


@pytest.mark.parametrize(
    ("address", "places", "settings", "refused"),
    [
        (OUTSIDE, Places(), {}, None),
        (OUTSIDE, Places(taken=63), {}, None),
        (OUTSIDE, Places(taken=64), {}, 503),
        (OUTSIDE, Places(taken=2), {"max_sessions": 2}, 503),
        (OUTSIDE, Places(taken=64, from_address=64), {}, 503),
        (OUTSIDE, Places(closing=True), {}, 503),
        (OUTSIDE, Places(behind_s=20.0), {}, None),
        ("127.0.0.1", Places(behind_s=20.1), {}, 503),
        (OUTSIDE, Places(behind_s=3.0), {"max_wait_s": 2.5}, 503),
        (OUTSIDE, Places(taken=15, from_address=15), {}, None),
        (OUTSIDE, Places(taken=16, from_address=16), {}, 429),
        (OUTSIDE, Places(taken=1, from_address=1), {"max_sessions_per_address": 1}, 429),
        ("", Places(taken=16, from_address=16), {}, 429),
        ("127.0.0.1", Places(taken=16, from_address=16), {}, None),
        ("::1", Places(taken=16, from_address=16), {}, None),
        ("::ffff:127.0.0.1", Places(taken=16, from_address=16), {}, None),
        ("127.0.0.1", Places(taken=16, from_address=16), {"limit_loopback": True}, 429),
    ],
)
def test_places_are_bounded(
    address: str, places: Places, settings: dict[str, Any], refused: int | None
) -> None:
    refusal = room(ServerSettings(**settings), address, places)
    assert status(refusal) == refused
    assert refusal is None or refusal.retry_s == 5


def test_the_reasons_name_the_bound() -> None:
    few = ServerSettings(max_sessions=3, max_sessions_per_address=2)
    full = room(few, OUTSIDE, Places(taken=3))
    yours = room(few, OUTSIDE, Places(taken=2, from_address=2))
    assert full is not None
    assert full.reason == "all 3 places are taken; try again later"
    assert yours is not None
    assert yours.reason.startswith("2 callers from this address")


# Settings


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.168.1.5", "box", "::ffff:10.0.0.1"])
def test_beyond_this_machine_it_takes_a_token_or_a_word(host: str) -> None:
    with pytest.raises(ServerError, match="--token-file .*--insecure") as refused:
        require_safe(ServerSettings(host=host))
    assert repr(host) in str(refused.value)
    require_safe(ServerSettings(host=host, tokens=(ONE,)))
    require_safe(ServerSettings(host=host, insecure=True))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine_needs_no_token(host: str) -> None:
    require_safe(ServerSettings(host=host))
    assert warnings_about(ServerSettings(host=host)) == []


def test_a_short_token_is_refused_and_not_repeated() -> None:
    with pytest.raises(TokenError, match="tokens, number 2: no token") as refused:
        require_safe(ServerSettings(tokens=(ONE, "hunter2")))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "origin", ["*", "voice.example", "https://voice.example/", "null", "", "https://*.example"]
)
def test_an_allowed_origin_that_is_none_is_named(origin: str) -> None:
    with pytest.raises(ServerError, match=r"allowed_origins \(--allow-origin\) has") as refused:
        require_safe(ServerSettings(allowed_origins=(origin,)))
    assert repr(origin) in str(refused.value)


def test_what_is_worth_knowing_is_said() -> None:
    outside = ServerSettings(host="0.0.0.0", insecure=True)
    assert [warning.partition(":")[0] for warning in warnings_about(outside)] == [
        "no token is configured",
        "no TLS",
    ]
    encrypted = outside.model_copy(update={"tokens": (ONE,), "tls_cert": Path("cert.pem")})
    assert warnings_about(encrypted) == []


def test_settings_do_not_show_their_tokens() -> None:
    assert ONE not in repr(BOTH)


# Whatever may come

NAMES = ("Origin", "Host", "Authorization", "Sec-WebSocket-Protocol")
TEXT = st.text(st.characters(), max_size=30)
VALUES = st.one_of(
    TEXT,
    TEXT.map(lambda text: f"Bearer {text}"),
    TEXT.map(lambda text: f"labkit.v1, {BEARER_PREFIX}{text}"),
    TEXT.map(lambda text: f"http://{text}"),
    TEXT.map(lambda text: f"http://localhost{text}"),
    st.sampled_from([f"Bearer {ONE}", f"{BEARER_PREFIX}{ONE}", "http://localhost", "null"]),
)
HEADERS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6)


@example(headers=[("Authorization", "Bearer \ud800")], path="//[", address="")
@example(headers=[("Origin", "http://[")], path="?%", address="::1%lo")
@given(headers=HEADERS, path=TEXT, address=TEXT)
def test_nothing_raises_and_only_a_known_token_lets_in(
    headers: list[tuple[str, str]], path: str, address: str
) -> None:
    for settings in (OPEN, BOTH):
        verdict = identify(settings, *headers, path=path, address=address)
        shown = any(ONE in value or TWO in value for _, value in headers)
        if isinstance(verdict, Caller) and settings is BOTH and path not in ("/healthz",):
            assert shown
            assert verdict.identity in (identity_of(ONE), identity_of(TWO))
        if isinstance(verdict, Refusal):
            assert ONE not in verdict.reason
            assert verdict.status.value in (400, 401, 403)


@given(
    st.integers(0, 100), st.integers(0, 100), st.booleans(), st.sampled_from([OUTSIDE, "::1", "x"])
)
def test_room_never_goes_beyond_the_bounds(
    taken: int, from_address: int, closing: bool, address: str
) -> None:
    refusal = room(OPEN, address, Places(taken, from_address, closing))
    if refusal is None:
        assert not closing
        assert taken < 64
        assert from_address < 16 or address == "::1"


@pytest.mark.parametrize("path", ["/metrics", "/schema.json", "/metrics?x=1"])
@pytest.mark.parametrize(
    ("host", "verdict"),
    [
        ("localhost:8765", None),
        ("127.0.0.1:8765", None),
        ("192.168.1.5", None),
        ("[::1]:8765", None),
        ("voice.example", None),
        ("evil.example:8765", 403),
        ("", 403),
    ],
)
def test_pages_are_read_under_a_name_of_the_servers_own(
    path: str, host: str, verdict: int | None
) -> None:
    settings = OPEN.model_copy(update={"allowed_origins": ("https://voice.example",)})
    assert status(identify(settings, ("Host", host), path=path, address="127.0.0.1")) == verdict


def test_whoever_shows_a_token_may_read_pages_under_any_name() -> None:
    shown = [("Host", "box.example"), ("Authorization", f"Bearer {ONE}")]
    assert status(identify(BOTH, *shown, path="/metrics")) is None


def test_health_is_for_everybody() -> None:
    assert status(identify(OPEN, ("Host", "evil.example"), path="/healthz")) is None
