"""Where a machine can listen: what it has, what is free, and the advice where it cannot."""

import errno
import os
import socket
from typing import Any

import pytest

from labkit.errors import ServerError
from labkit.net import listening
from labkit.net.listening import addresses_to_bind

BOTH = [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
]


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

    monkeypatch.setattr(listening, "_try_to_bind", bind)


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
