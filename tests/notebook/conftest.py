"""Fixtures of notebooks."""

from typing import Any

import IPython
import pytest


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a cell puts out."""
    put_out: list[Any] = []
    monkeypatch.setattr(IPython, "get_ipython", object)
    monkeypatch.setattr("IPython.display.display", lambda what, **_: put_out.append(what))
    return put_out
