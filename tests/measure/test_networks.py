"""Kinds of networks: those with a name, and files."""

from pathlib import Path

import pytest

from labkit.errors import InstrumentError
from labkit.measure.links import Direction, Link
from labkit.measure.networks import PROFILES, read_profile


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_says_what_it_assumes_and_cuts_nothing(name: str) -> None:
    profile = read_profile(name)
    assert profile.name == name
    assert profile.about.endswith(".")
    assert all(profile.conditions[way].cut_after is None for way in Direction)


def test_a_file_describes_a_network(tmp_path: Path) -> None:
    path = tmp_path / "office.toml"
    path.write_text("""
about = "Behind the VPN."
[up]
delay_ms = 18.0
jitter_ms = 6
mbit_per_s = 8
""")
    profile = read_profile(str(path))
    assert (profile.name, profile.about) == ("office", "Behind the VPN.")
    assert profile.conditions.up == Link(delay_ms=18, jitter_ms=6, bytes_per_s=1e6)
    assert profile.conditions.down == Link()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("about = ", "describes no network"),
        ("[up]\ndelay_s = 1", r"field 'up\.delay_s': Extra inputs are not permitted; it is 1"),
        ("[up]\ndelay_ms = -1", r"field 'up\.delay_ms': .*greater than or equal to 0; it is -1"),
        ("[up]\ndelay_ms = 'long'", r"field 'up\.delay_ms': .* a valid number; it is 'long'"),
        ("[up]\njitter_ms = true", r"field 'up\.jitter_ms': .* a valid number; it is True"),
        ("[down]\ndelay_ms = nan", r"field 'down\.delay_ms': .* finite number; it is nan"),
        ("[down]\nmbit_per_s = 0", r"field 'down\.mbit_per_s': .* greater than 0; it is 0"),
        ("[sideways]\ndelay_ms = 1", "field 'sideways': .* it is {'delay_ms': 1}"),
        ("up = 3", "field 'up': .* it is 3"),
        ("", r"describes no network: it says nothing of \[up\] and nothing of \[down\]"),
        ("about = 'fast'", "it says nothing of"),
    ],
)
def test_a_file_that_describes_none_is_refused_with_the_reason(
    tmp_path: Path, content: str, reason: str
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(content)
    with pytest.raises(InstrumentError, match=reason):
        read_profile(str(path))


def test_an_unknown_network_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        InstrumentError, match="'5g' is none of loopback, lan, wifi, 4g, 3g, satellite"
    ):
        read_profile("5g")
