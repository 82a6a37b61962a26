"""The real engines on the embedded models, loaded once for all tests that need them."""

from functools import cache

from labkit.voice.engines import Engines
from labkit.voice.loading import load_engines
from labkit.voice.models import ModelPaths, resolve


@cache
def embedded_paths() -> ModelPaths:
    """Where the embedded models lie."""
    return resolve()


@cache
def embedded_engines() -> Engines:
    """The engines, warm, on one thread each."""
    return load_engines(embedded_paths(), threads=1)


@cache
def tiny_engines() -> Engines:
    """The same on the public models of the set tiny; for tests marked `public`."""
    return load_engines(resolve("tiny"), threads=1)
