"""The servers of every chapter that has checks."""

from collections.abc import Mapping
from typing import Final

from tests.course.ch1_servers import CH1
from tests.course.servers import Servers

CHAPTERS: Final[Mapping[int, Servers]] = {servers.chapter: servers for servers in (CH1,)}
"""By the chapter's number."""
