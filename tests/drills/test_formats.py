"""The short form of `labkit drill formats`: two voices, and every kind of negative."""

from itertools import cycle, product

import numpy as np
import pytest

from labkit.audio.formats import AudioFormat, Encoding
from labkit.audio.misread import MISMATCHES
from labkit.drills import formats
from labkit.drills.formats import Outcome
from labkit.errors import ErrorCode
from labkit.measure.recordings import load_manifest
from tests.paths import SPEECH

RECORDINGS = load_manifest(SPEECH)
FORMS = [AudioFormat(*f) for f in product(Encoding, (8_000, 16_000, 44_100, 48_000), (1, 2))]


@pytest.mark.slow
def test_every_lie_about_a_voice_is_found_and_named() -> None:
    outcomes = list(formats.measure(RECORDINGS[4:5]))
    assert {kind for outcome in outcomes for kind in outcome.kinds} == MISMATCHES
    assert any(not outcome.kinds for outcome in outcomes)
    assert [outcome for outcome in outcomes if not outcome.holds] == []


def test_nothing_is_made_up_about_audio_that_is_as_declared() -> None:
    voiceless = [r for r in RECORDINGS if not r.kind.is_speech]
    sounds = formats.negatives([RECORDINGS[20], *voiceless])
    for (name, sound), form in zip(sounds, cycle(FORMS[::5]), strict=False):
        data = form.encode(sound(form.sample_rate))
        assert formats.listen(form, data, 10, 40) == [], f"{name}, {form}"


def test_every_delivery_keeps_the_order_of_messages() -> None:
    for delivery in formats.DELIVERIES:
        times = delivery(100, 0.04)
        assert len(times) == 100
        assert np.diff(times).min() >= 0


@pytest.mark.parametrize(
    ("kinds", "found", "named", "holds"),
    [
        ((ErrorCode.RATE_MISMATCH,), 20, 20, True),
        ((ErrorCode.RATE_MISMATCH,), 18, 18, False),
        ((ErrorCode.RATE_MISMATCH,), 20, 18, False),
        ((), 0, 0, True),
        ((), 1, 0, False),
    ],
)
def test_the_bar_is_95_percent_or_silence(
    kinds: tuple[ErrorCode, ...], found: int, named: int, holds: bool
) -> None:
    outcome = Outcome(
        sent="a", declared="b", kinds=kinds, streams=20, after_s=[1.0] * found, named=named
    )
    assert outcome.holds is holds


def test_packets_of_ogg_come_without_pages_and_headers() -> None:
    def page(*packets: bytes) -> bytes:
        return b"OggS" + bytes(22) + bytes([len(packets), *map(len, packets)]) + b"".join(packets)

    assert formats.packets(page(b"head") + page(b"tags") + page(b"ab", b"c")) == b"abc"
