"""What an address says of its owner."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.addresses import caller_at, is_address, is_loopback


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
