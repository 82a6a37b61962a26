"""A real browser: Debian's Chromium, driven by Playwright, with a microphone that plays a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

from labkit.audio.pcm import SAMPLE_RATE, read_audio, write_wav
from labkit.measure.recordings import recording
from tests.support import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.browser.lab import Chapter, Lab

SAID: Final = "ked-03"
"""What the microphone hears; the recogniser understands it at any level."""
BEFORE_S: Final = 3.0
"""The silence before it: a browser takes its time between opening the microphone and listening."""
AFTER_S: Final = 1.0

_OPTIONS: Final = (
    "--headless=new",
    "--no-sandbox",  # it refuses to run as root with one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",  # says yes when a page asks for the microphone
    "--use-fake-device-for-media-stream",
)
NOT_TESTED: Final = (
    "no chapter was opened in JupyterLab, no widget clicked, no microphone used, and no kernel "
    "interrupted in a measurement"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, browser: "Browser") -> Iterator["Lab"]:
    """JupyterLab on the copies of somebody who begins."""
    from tests.browser.lab import jupyterlab

    with jupyterlab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    """Chromium with an empty profile."""
    if (program := chromium()) is None:
        pytest.skip(f"chromium is not here (Debian: apt install chromium): {NOT_TESTED}")
    from playwright.sync_api import sync_playwright

    spoken = microphone(tmp_path_factory.mktemp("microphone") / "said.wav")
    options = [*_OPTIONS, f"--use-file-for-fake-audio-capture={spoken}%noloop"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


def microphone(path: Path) -> Path:
    """What the microphone hears, as a file."""
    before, after = (np.zeros(round(s * SAMPLE_RATE), np.float32) for s in (BEFORE_S, AFTER_S))
    write_wav(path, np.concatenate([before, read_audio(recording(SAID).path), after]))
    return path


@pytest.fixture
def chapter(lab: "Lab", browser: "Browser", request: pytest.FixtureRequest) -> Iterator["Chapter"]:
    """A page to open a chapter in; afterwards, nothing is left of it, and nothing went wrong."""
    from tests.browser.lab import Chapter, wait_for

    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tries = getattr(request.node, "execution_count", 1)  # of pytest-rerunfailures
    chapter = Chapter(context.new_page(), again=tries > 1)
    yield chapter
    notices = chapter.page.locator(".Toastify__toast, .jp-Dialog").all_inner_texts()
    chapter.close()
    context.close()
    wait_for(lambda: not lab.servers(), "the end of the notebook's servers")
    assert notices == []
    assert chapter.errors == []
    assert chapter.foreign == []
