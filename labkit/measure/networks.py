"""Kinds of networks by name, and files that describe one: what each direction does."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from labkit.errors import InstrumentError, first_fault
from labkit.measure.links import Conditions, Link


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of network: its figures, and what they are and where they are from."""

    name: str
    about: str
    conditions: Conditions


_Ms = Annotated[FiniteFloat, Field(ge=0)]


class _Way(BaseModel):
    """One direction of a network, as a file tells it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    delay_ms: _Ms = 0.0
    jitter_ms: _Ms = 0.0
    mbit_per_s: Annotated[FiniteFloat, Field(gt=0)] | None = None

    @property
    def link(self) -> Link:
        """The same as a link."""
        rate = None if self.mbit_per_s is None else self.mbit_per_s * 1e6 / 8
        return Link(delay_ms=self.delay_ms, jitter_ms=self.jitter_ms, bytes_per_s=rate)


class _Network(BaseModel):
    """A kind of network, as a file tells it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    about: str = ""
    up: _Way = _Way()
    down: _Way = _Way()

    def profile(self, name: str) -> Profile:
        """The same with its name."""
        return Profile(name, self.about or name, Conditions(self.up.link, self.down.link))


def read_profile(named: str) -> Profile:
    """A kind of network by its name, or from a file in TOML.

    Such a file says, for each direction what it does, and nothing of what it does not do::

        about = "Our office behind the VPN, measured with ping on a Monday."
        [up]
        delay_ms = 18.0
        jitter_ms = 6.0
        mbit_per_s = 8.0
        [down]
        delay_ms = 18.0

    Raises:
        InstrumentError: It is neither, or the file says something else.
    """
    if named in PROFILES:
        return PROFILES[named]
    path = Path(named)
    if not path.is_file():
        known = ", ".join(PROFILES)
        raise InstrumentError(f"network {named!r} is none of {known}, and no file")
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
        network = _Network.model_validate(told)
        if not network.model_fields_set & {"up", "down"}:
            raise ValueError("it says nothing of [up] and nothing of [down]")
        name = path.stem.encode(errors="replace").decode()  # figures and files show it
        return network.profile(name)
    except (OSError, ValueError) as error:
        why = first_fault(error) if isinstance(error, ValidationError) else error
        raise InstrumentError(f"{named} describes no network: {why}") from error


_NETWORKS: Final = Path(__file__).with_name("networks.toml")

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        name: _Network.model_validate(told).profile(name)
        for name, told in tomllib.loads(_NETWORKS.read_text(encoding="utf-8")).items()
    }
)
"""Kinds of networks by name. They are for comparing, and no measurements of any one network."""

LOOPBACK: Final = PROFILES["loopback"]
