"""The network around a connection: addresses, certificates, tokens, and what is logged of it.

At level DEBUG, websockets logs the headers and the messages of every connection: tokens, query
strings, transcripts and audio. Its log of labkit's connections therefore goes to `wire_log`, a
logger of its own, which stays at WARNING even where the root logger is at DEBUG. Whoever wants
the bytes asks for them: ``logging.getLogger("labkit.wire").setLevel(logging.DEBUG)``.
"""

import logging
from typing import Final

wire_log: Final = logging.getLogger("labkit.wire")
"""Where websockets logs, for servers and clients of labkit."""
wire_log.setLevel(logging.WARNING)
