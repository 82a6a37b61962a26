"""The servers of every chapter that has checks."""

from collections.abc import Mapping
from typing import Final

from tests.course.ch0_values import CH0
from tests.course.ch1_servers import CH1
from tests.course.ch2_servers import CH2
from tests.course.ch3_servers import CH3
from tests.course.ch4_servers import CH4
from tests.course.ch5_values import CH5
from tests.course.ch6_values import CH6
from tests.course.servers import Servers

CHAPTERS: Final[Mapping[int, Servers]] = {
    servers.chapter: servers for servers in (CH0, CH1, CH2, CH3, CH4, CH5, CH6)
}
"""By the chapter's number."""
