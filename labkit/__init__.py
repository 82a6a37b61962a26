"""labkit: a voice server you can hear, measure and build yourself.

The package holds the server that the notebooks build (`labkit.server`), a test client
(`labkit.client.plain`), the voice pipeline behind it (`labkit.voice`) and the measurements
(`labkit.measure`). `labkit.run` drives a coroutine from a notebook's plain function.
"""

from importlib.metadata import PackageNotFoundError, version

from labkit import telemetry
from labkit.notebook.loop import run

telemetry.switch_off()  # before any other module of labkit can import an engine

try:
    __version__ = version("labkit")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__", "run"]
