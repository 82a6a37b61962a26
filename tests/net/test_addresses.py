"""What an address says of its owner, and where a machine can listen."""

import errno
import os
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import ServerError
from labkit.net import addresses
from labkit.net.addresses import addresses_to_bind, caller_at, is_address, is_loopback

BOTH = [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost", "127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "0:0::1"],
)
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "192.168.1.5", "fe80::1", "::ffff:10.0.0.1", "127.evil.example", "box",
     "localhost.evil.example", "localhost.", "127.1", "[::1]", "1270.0.0.1"],
)  # fmt: skip
def test_not_this_machine_alone(host: str) -> None:
    assert not is_loopback(host)


def test_addresses_and_names() -> None:
    assert [is_address(host) for host in ("10.0.0.1", "::1", "box", "")] == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("", ""),
        ("box", "box"),
    ],
)
def test_whoever_has_an_ipv6_network_is_one_caller(address: str, key: str) -> None:
    assert caller_at(address) == key


@given(st.text(st.characters(), max_size=40))
def test_no_text_raises(text: str) -> None:
    assert isinstance(caller_at(text), str)
    assert is_loopback(text) in (True, False)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` stands for two addresses, as on most machines."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: BOTH)


def failing(monkeypatch: pytest.MonkeyPatch, **by_address: int) -> None:
    """Let binding fail for some addresses, written with `_` for what a name cannot have."""

    def bind(family: int, kind: int, protocol: int, address: tuple[Any, ...]) -> None:
        version = "v6" if family == socket.AF_INET6 else "v4"
        if code := by_address.get(version):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(addresses, "_try_to_bind", bind)


@pytest.mark.usefixtures("both")
def test_an_address_that_a_container_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch)
    assert addresses_to_bind("localhost", 0) == ["::1", "127.0.0.1"]
    for code in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        failing(monkeypatch, v6=code)
        assert addresses_to_bind("localhost", 0) == ["127.0.0.1"]


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize(
    ("codes", "advice"),
    [
        ({"v6": errno.EADDRINUSE}, "Another program listens there: stop it, or choose another"),
        ({"v4": errno.EACCES}, "Ports below 1024 are for the administrator"),
        (
            {"v4": errno.EADDRNOTAVAIL, "v6": errno.EAFNOSUPPORT},
            "This machine does not have that address",
        ),
    ],
)
def test_the_advice_fits_the_reason(
    monkeypatch: pytest.MonkeyPatch, codes: dict[str, int], advice: str
) -> None:
    failing(monkeypatch, **codes)
    with pytest.raises(ServerError, match=advice) as caught:
        addresses_to_bind("localhost", 80)
    assert str(caught.value).startswith("cannot listen on localhost:80: ")


def test_a_port_that_is_taken_and_one_that_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"127.0.0.1:{port}: Address already in use"):
            addresses_to_bind("127.0.0.1", port)
    assert addresses_to_bind("127.0.0.1", port) == ["127.0.0.1"]


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(ServerError, match="cannot listen on no.such.invalid: .*Give --host an"):
        addresses_to_bind("no.such.invalid", 0)
