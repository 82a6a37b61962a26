"""Defaults of a server that are needed where its settings are not, such as in a command's help."""

from typing import Final

DEFAULT_PORT: Final = 8765
DEFAULT_MAX_SESSIONS: Final = 64
DEFAULT_MAX_PER_ADDRESS: Final = 16
