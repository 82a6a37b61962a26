"""Sounds that are not speech: what a recogniser must answer with nothing."""

import random

import numpy as np
from scipy.signal import lfilter

from data.recipes.recogniser.sound import SAMPLE_RATE, Float32


def nonspeech(rng: random.Random) -> Float32:
    """Draw 0.5 to 6 s of silence, noise, tones, chords, clicks or hum, at a peak below 1."""
    length = int(rng.uniform(0.5, 6.0) * SAMPLE_RATE)
    make = rng.choice((silence, noise, noise, tone, chords, chords, clicks, hum))
    audio = make(rng, length)
    peak = float(np.abs(audio).max())
    return audio * np.float32(rng.uniform(0.01, 0.95) / peak) if peak > 0 else audio


def silence(rng: random.Random, length: int) -> Float32:
    """Zeros, or dither of a few steps of 16 bits."""
    steps = rng.choice((0, 0, 1, 4))
    generator = np.random.default_rng(rng.getrandbits(32))
    return (np.round(generator.uniform(-steps, steps, length)) / 32768).astype(np.float32)


def noise(rng: random.Random, length: int) -> Float32:
    """Noise from brown to blue, sometimes in bursts."""
    generator = np.random.default_rng(rng.getrandbits(32))
    spectrum = np.fft.rfft(generator.standard_normal(length))
    shaped = np.fft.irfft(
        spectrum * (np.arange(len(spectrum)) + 1.0) ** rng.uniform(-1, 0.5), length
    )
    if rng.random() < 0.4:
        shaped = shaped * _swell(rng, length)
    return shaped.astype(np.float32)


def tone(rng: random.Random, length: int) -> Float32:
    """One to three tones, steady, gliding, or switched on and off."""
    time = np.arange(length) / SAMPLE_RATE
    audio = np.zeros(length)
    for _ in range(rng.randint(1, 3)):
        hz = np.exp(rng.uniform(np.log(80), np.log(5000)))
        glide = rng.choice((0.0, 0.0, rng.uniform(-0.5, 0.5)))
        audio += np.sin(2 * np.pi * hz * (time + glide * time**2 / 2))
    if rng.random() < 0.4:
        audio = audio * (np.sin(2 * np.pi * rng.uniform(0.5, 8) * time) > 0)
    return audio.astype(np.float32)


def chords(rng: random.Random, length: int) -> Float32:
    """Plucked or bowed chords of three or four notes with overtones, one after another."""
    audio = np.zeros(length)
    beat = int(rng.uniform(0.2, 1.0) * SAMPLE_RATE)
    for start in range(0, length, beat):
        count = min(beat, length - start)
        root = 110 * 2 ** (rng.randint(0, 24) / 12)
        for interval in rng.choice(((0, 4, 7), (0, 3, 7), (0, 4, 7, 11), (0, 5, 9))):
            audio[start : start + count] += _note(rng, root * 2 ** (interval / 12), count)
    return audio.astype(np.float32)


def _note(rng: random.Random, hz: float, count: int) -> np.ndarray:
    time = np.arange(count) / SAMPLE_RATE
    decay = np.exp(-time * rng.uniform(0.2, 6))
    attack = np.minimum(time / 0.02, 1)
    bright = rng.uniform(0.3, 0.9)
    overtones = (bright**k * np.sin(2 * np.pi * hz * k * time) for k in range(1, 8))
    return sum(overtones, np.zeros(count)) * decay * attack


def clicks(rng: random.Random, length: int) -> Float32:
    """A few taps and knocks."""
    audio = np.zeros(length, np.float32)
    generator = np.random.default_rng(rng.getrandbits(32))
    for _ in range(rng.randint(1, 12)):
        count = min(rng.randint(20, 2400), length)
        start = rng.randrange(length - count + 1)
        fade = np.exp(-np.arange(count) / count * 6)
        audio[start : start + count] += (generator.standard_normal(count) * fade).astype(np.float32)
    return audio


def hum(rng: random.Random, length: int) -> Float32:
    """Mains hum or a fan: low harmonics with some noise."""
    time = np.arange(length) / SAMPLE_RATE
    base = rng.choice((50.0, 60.0, rng.uniform(30, 200)))
    audio = sum(
        (rng.random() / k * np.sin(2 * np.pi * base * k * time) for k in range(1, 12)),
        np.zeros(length),
    )
    return (audio + 0.1 * noise(rng, length) / 3).astype(np.float32)


def _swell(rng: random.Random, length: int) -> np.ndarray:
    knots = [rng.random() for _ in range(rng.randint(3, 10))]
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(knots)), knots)


def breaths(rng: random.Random, length: int) -> Float32:
    """Breathing in and out close to a microphone: noise through a wide vocal tract."""
    generator = np.random.default_rng(rng.getrandbits(32))
    audio = np.zeros(length)
    start = 0
    while start < length:
        count = min(int(rng.uniform(0.3, 1.8) * SAMPLE_RATE), length - start)
        rush = sum(
            (_resonance(generator.standard_normal(count), hz * rng.uniform(0.9, 1.1), 300.0))
            for hz in (600.0, 1500.0, 2600.0)
        )
        swell = np.hanning(count + 2)[1:-1] ** rng.uniform(0.5, 2)
        audio[start : start + count] = rush * swell * rng.uniform(0.3, 1)
        start += count + int(rng.uniform(0.1, 1.5) * SAMPLE_RATE)
    return audio.astype(np.float32)


def keyboard(rng: random.Random, length: int) -> Float32:
    """Typing: each key makes a click when it goes down, and a softer one when it comes up."""
    generator = np.random.default_rng(rng.getrandbits(32))
    audio = np.zeros(length)
    per_second = rng.uniform(2, 12)
    case_hz = [rng.uniform(800, 6000) for _ in range(3)]
    start = 0
    while start < length:
        for at, level in ((start, 1.0), (start + int(0.09 * SAMPLE_RATE), rng.uniform(0.2, 0.7))):
            count = min(int(rng.uniform(0.005, 0.04) * SAMPLE_RATE), length - at)
            if count > 0:
                click = generator.standard_normal(count) * np.exp(-5 * np.arange(count) / count)
                rings = (_resonance(click, hz, 200.0) for hz in case_hz)
                audio[at : at + count] += level * sum(rings, click)
        start += int((0.03 + rng.expovariate(per_second)) * SAMPLE_RATE)
    return audio.astype(np.float32)


def humming(rng: random.Random, length: int) -> Float32:
    """A voice that hums a tune without words: what comes nearest to speech."""
    audio = np.zeros(length)
    start = 0
    while start < length:
        count = min(int(rng.uniform(0.3, 1.2) * SAMPLE_RATE), length - start)
        time = np.arange(count) / SAMPLE_RATE
        hz = 110 * 2 ** (rng.randint(0, 20) / 12) * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * time))
        pulses = np.diff(np.floor(np.cumsum(hz) / SAMPLE_RATE), prepend=0.0)
        note = _resonance(_resonance(pulses, rng.uniform(250, 800), 90.0), 1400.0, 120.0)
        fade = np.minimum(1, np.minimum(np.arange(count), count - np.arange(count)) / 800)
        audio[start : start + count] = note / max(float(np.abs(note).max()), 1e-9) * fade
        start += count + int(rng.uniform(0, 0.3) * SAMPLE_RATE)
    return audio.astype(np.float32)


def _resonance(audio: np.ndarray, hz: float, width_hz: float) -> np.ndarray:
    """`audio` through one formant."""
    radius = np.exp(-np.pi * width_hz / SAMPLE_RATE)
    poles = [1.0, -2 * radius * np.cos(2 * np.pi * hz / SAMPLE_RATE), radius**2]
    return np.asarray(lfilter([1 - radius], poles, audio))
