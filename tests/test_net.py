"""Addresses and who owns them, certificates from files, and tokens that no error repeats."""

import errno
import logging
import os
import re
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit import net
from labkit.errors import ClientError, ServerError, TokenError
from labkit.net import (
    TOKEN_VARIABLE,
    addresses_to_bind,
    bearer,
    caller_at,
    client_tls,
    is_address,
    is_loopback,
    new_token,
    read_tokens,
    require_token,
    server_tls,
    token_in,
)
from tests.certificates import Certificate, self_signed

# -- addresses ---------------------------------------------------------------------------------

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

    monkeypatch.setattr(net, "_try_to_bind", bind)


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


@pytest.mark.parametrize("name", ["no.such.invalid", "a..b", "x" * 80 + ".example"])
def test_a_name_that_nobody_knows(name: str) -> None:
    with pytest.raises(ServerError, match=f"cannot listen on {name}: .*Give --host an"):
        addresses_to_bind(name, 0)


# -- certificates ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("certificate"))


def test_a_server_speaks_tls_1_2_or_newer(certificate: Certificate) -> None:
    context = server_tls(certificate.cert, certificate.key)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.protocol == ssl.PROTOCOL_TLS_SERVER


def test_one_file_may_hold_both(certificate: Certificate, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(certificate.cert.read_text() + certificate.key.read_text())
    server_tls(both)


def test_a_client_trusts_what_it_was_given_and_checks_the_name(certificate: Certificate) -> None:
    context = client_tls(certificate.cert)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_file_is_named(certificate: Certificate, tmp_path: Path, which: int) -> None:
    files = list(certificate)
    files[which] = tmp_path / "none.pem"
    with pytest.raises(ServerError, match=r"none\.pem cannot be read: No such file"):
        server_tls(*files)


def test_a_broken_file_is_named(certificate: Certificate, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with pytest.raises(ServerError, match=r"broken\.pem and .*key\.pem: no certificate"):
        server_tls(broken, certificate.key)
    with pytest.raises(ServerError, match=r"cert\.pem and .*broken\.pem: no certificate"):
        server_tls(certificate.cert, broken)


def test_the_key_of_another_certificate_is_refused(
    certificate: Certificate, tmp_path: Path
) -> None:
    other = self_signed(tmp_path)
    with pytest.raises(ServerError, match=r"key\.pem: no certificate with its key.*MISMATCH"):
        server_tls(certificate.cert, other.key)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(
    certificate: Certificate, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", certificate.key, "-out", locked,
         "-passout", "pass:secret"],
        check=True, capture_output=True,
    )  # fmt: skip
    with pytest.raises(ServerError, match=r"locked\.pem: .*not encrypted"):
        server_tls(certificate.cert, locked)


def test_a_client_is_told_what_is_wrong_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"none\.pem cannot be read: No such file"):
        client_tls(tmp_path / "none.pem")
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with pytest.raises(ClientError, match=r"broken\.pem holds no certificate in PEM"):
        client_tls(broken)


# -- tokens ------------------------------------------------------------------------------------

ONE = "one-token-of-sixteen"
TWO = "two_token_of_sixteen"


def written(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "tokens.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def test_a_fresh_token_is_one_and_another_each_time() -> None:
    fresh = {new_token() for _ in range(20)}
    assert len(fresh) == 20
    assert all(require_token(token, "here") == token and len(token) == 43 for token in fresh)


def test_a_token_is_shown_in_a_header() -> None:
    assert bearer(ONE) == {"Authorization": f"Bearer {ONE}"}


def test_a_file_has_a_token_per_line_and_comments(tmp_path: Path) -> None:
    text = f"\ufeff# laptops\n{ONE}   # of the first\r\n\n  {TWO}\n"
    assert read_tokens(written(tmp_path, text)) == (ONE, TWO)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no token"),
        ("# none yet\n", "holds no token"),
        (f"{ONE}\nshort\n", "line 2: no token, but 5 characters"),
        ("sixteen characters", "line 1: no token"),
        ("padding-is-no-part=", "line 1: no token"),
        (b"\xff" * 20, "line 1: no token"),
        ("ä" * 20, "line 1: no token"),
        ("x" * 257, "257 characters"),
    ],
)
def test_a_file_without_tokens_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TokenError, match=said) as refused:
        read_tokens(path)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match=r"none\.txt cannot be read: No such file"):
        read_tokens(tmp_path / "none.txt")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_everybody_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING, logger="labkit"):
        read_tokens(written(tmp_path, ONE, mode))
    assert ("chmod 600" in caplog.text) == warned
    assert ONE not in caplog.text


def test_the_environment_may_hold_a_token() -> None:
    assert token_in({}) is None
    assert token_in({TOKEN_VARIABLE: ONE}) == ONE


@pytest.mark.parametrize("value", ["", "short", f"{ONE} "])
def test_a_variable_that_holds_no_token_is_refused(value: str) -> None:
    with pytest.raises(TokenError, match=TOKEN_VARIABLE):
        token_in({TOKEN_VARIABLE: value})


@given(st.text(min_size=8).filter(lambda text: not re.fullmatch("[A-Za-z0-9_-]{16,256}", text)))
def test_no_error_repeats_what_may_be_a_secret(text: str) -> None:
    secret = f"!{text}!"
    with pytest.raises(TokenError) as refused:
        require_token(secret, "here")
    assert secret not in str(refused.value)
