"""The heart: one conversation, whatever the dialect that carries it.

Here are the defaults that a command's help names, without what the settings need to be loaded.
"""

from typing import Final

DEFAULT_PORT: Final = 8765
DEFAULT_MAX_SESSIONS: Final = 64
DEFAULT_MAX_PER_ADDRESS: Final = 16
