"""The checks of chapter 5: what is computed from marks, and what is concluded from measurements."""

from collections.abc import Mapping
from itertools import permutations
from typing import Any, Final

from labkit.course.checks.check import checked_value
from labkit.course.folder import Prediction
from labkit.course.latency import PREDICTED
from labkit.course.probe import Trial
from labkit.course.verdict import NotYet
from labkit.measure.chunking import CHUNK_SIZES_MS, overhead_bytes, packetisation_wait_ms, segments
from labkit.trace import SERVER_MARKS, STAGES, Mark, Stage

_NS: Final = 1_000_000
_CLOSE_MS: Final = 0.01
_CLOSE_PERCENT: Final = 0.05
_WIDE: Final = 1.5
"""Half of an interval that tells nothing, as a share of what it is about."""
_BYTES_PER_MS: Final = 32
_ENDS: Final = (Mark.END_OF_SPEECH, *(end for _, end in STAGES.values()))
"""The marks that a part can end at, after the one that the wait begins with."""


@checked_value("ch5.predicted_first", "Every prediction was made before its measurement.")
async def predicted_first(trial: Trial, noted: Any) -> None:
    """Nothing: looks at the five predictions of the chapter, and at when each was made."""
    if not isinstance(noted, Mapping):
        raise NotYet('what predictions_of("ch5") gives', repr(noted))
    for name in PREDICTED:
        one = noted.get(name, Prediction())
        if one.predicted is None:
            raise NotYet(f"a prediction of {name}", "none so far")
        if one.measured is None:
            raise NotYet(f"a measurement of {name}", "none so far")
        if one.late:
            raise NotYet(f"a prediction of {name} before it was measured", "one made afterwards")
        trial.ok(f"{name} was predicted, then measured")


@checked_value("ch5.wait", "The wait, from the marks of a turn.")
async def wait(trial: Trial, wait_ms: Any) -> None:
    """`wait_ms(marks)` for the marks of three turns, drawn, in any order, in nanoseconds."""
    for _ in range(3):
        marks = _drawn(trial)
        ends = (Mark.END_OF_SPEECH, Mark.FIRST_AUDIO_HEARD)
        told = "from the last word to the first sound that can be heard"
        _require_between(trial, wait_ms, marks, ends, told)


@checked_value("ch5.packetisation", "The wait for the last chunk, from the marks of a turn.")
async def packetisation(trial: Trial, packetisation_ms: Any) -> None:
    """`packetisation_ms(marks)` for the marks of three turns, drawn, in nanoseconds."""
    for _ in range(3):
        marks = _drawn(trial)
        ends = STAGES[Stage.PACKETISATION]
        told = "from the last word until the client has sent all of it, and says so"
        _require_between(trial, packetisation_ms, marks, ends, told)


def _require_between(
    trial: Trial, function: Any, marks: Mapping[Mark, int], ends: tuple[Mark, Mark], told: str
) -> None:
    """Require the time between two marks, which the learner is to name: `told` does not."""
    start, end = ends
    true = (marks[end] - marks[start]) / _NS
    expected = f"{true:.3f} ms, {told}"
    given = trial.call(function, _plain(marks), expected=expected)
    if isinstance(given, int | float):
        for one, other in permutations(marks, 2):
            if one is not start or other is not end:
                span = marks[other] - marks[one]
                if abs(given - span / _NS) <= _CLOSE_MS:
                    raise NotYet(expected, f"{given:.3f} ms, which is from {one} to {other}")
        if given == marks[end] - marks[start]:
            raise NotYet(expected, f"{given}: that is in nanoseconds")
    trial.number(given, true, _CLOSE_MS, expected=expected, unit="ms")
    trial.ok(f"gives {true:.3f} ms, from {start} to {end}")


@checked_value("ch5.marks_add_up", "The parts of the wait, which add up to it.")
async def marks_add_up(trial: Trial, parts_ms: Any) -> None:
    """`parts_ms(marks)` for the marks of three turns: all of them, none of the server's, some."""
    some = trial.rng.sample([mark for mark in _ENDS if mark in SERVER_MARKS], 2)
    for lacking, told in (
        ((), "with all marks"),
        (SERVER_MARKS, "without those of the server"),
        (some, f"without {' and '.join(some)}"),
    ):
        marks = {mark: at for mark, at in _drawn(trial).items() if mark not in lacking}
        true, start = _parts(marks)
        given = trial.call(parts_ms, _plain(marks), expected=f"the parts of a turn {told}")
        if not isinstance(given, Mapping) or set(given) != set(true):
            keys = ", ".join(map(str, given)) if isinstance(given, Mapping) else repr(given)
            raise NotYet(f"parts that end at {', '.join(true)} ({told})", keys or "no part")
        for end, span in true.items():
            expected = f"{span:.3f} ms from {start[end]} to {end} ({told})"
            trial.number(given[end], span, _CLOSE_MS, expected=expected, unit="ms")
        trial.ok(f"{len(true)} parts that add up to {sum(true.values()):.3f} ms, {told}")


def _parts(marks: Mapping[Mark, int]) -> tuple[dict[str, float], dict[str, str]]:
    """The parts by the mark that ends each, and the mark that each begins with."""
    there = [mark for mark in _ENDS if mark in marks]
    pairs = list(zip(there, there[1:], strict=False))
    return (
        {str(end): (marks[end] - marks[start]) / _NS for start, end in pairs},
        {str(end): str(start) for start, end in pairs},
    )


def _drawn(trial: Trial) -> dict[Mark, int]:
    """The marks of a turn: in the order of the turn, at drawn times, shuffled."""
    at = trial.rng.randrange(10**12)
    marks = {}
    for mark in Mark:
        marks[mark] = at
        at += trial.rng.randrange(1 * _NS, 200 * _NS)
    return {mark: marks[mark] for mark in trial.rng.sample(list(Mark), len(Mark))}


def _plain(marks: Mapping[Mark, int]) -> dict[str, int]:
    return {str(mark): at for mark, at in marks.items()}


@checked_value("ch5.headers", "What the headers add to a message of audio.")
async def headers(trial: Trial, headers_percent: Any) -> None:
    """`headers_percent(chunk_ms)` for 40, 45, 46, 50 and 181 ms, and for five drawn from 1 to 500.

    Headers of a message: 6 bytes of WebSocket where the audio has less than 126 bytes, else 8;
    and 52 bytes of IPv4 and TCP for every segment, of which each carries 1,448 bytes at most.
    """
    drawn = [
        trial.rng.randint(*ends) for ends in ((1, 3), (4, 30), (60, 99), (100, 250), (251, 500))
    ]
    # 181 ms fill four segments to the last byte, if it were not for the header.
    for chunk_ms in (40, 45, 46, 50, 181, *drawn):
        payload = chunk_ms * _BYTES_PER_MS
        true = 100 * overhead_bytes(payload, 1) / payload
        count = segments(payload)
        expected = (
            f"{true:.2f} % for {chunk_ms} ms: {overhead_bytes(payload, 1)} bytes of headers around "
            f"{payload} of audio, in {count} segment{'s' * (count > 1)}"
        )
        given = trial.call(headers_percent, chunk_ms, expected=expected)
        trial.number(given, true, _CLOSE_PERCENT, expected=expected, unit="%")
    trial.ok("gives the headers of ten chunk sizes, where a second segment begins as well")


@checked_value("ch5.conclusion", "The conclusion follows from the data.")
async def conclusion(trial: Trial, conclude: Any) -> None:
    """`conclude(rows, most_added_ms, most_headers_percent)` for five drawn tables of six sizes.

    In one the largest chunks add what half a chunk predicts, in one nearly that: the interval
    misses the prediction by less than a tenth of it. In one they add more, in one the interval is
    so wide that nothing is known. The fifth has limits that no size keeps. Rows come in any order.
    """
    for told, off, width in (
        ("as predicted", 0.0, 0.1),
        ("nearly as predicted", 0.11, 0.05),
        ("more than predicted", 0.6, 0.1),
        ("wide intervals", 0.0, _WIDE),
        ("limits that no size keeps", 0.0, 0.1),
    ):
        rows = _table(trial, off, width)
        limits = (
            (-1.0, 0.5) if "limits" in told else (_limit(trial, rows), trial.rng.uniform(4, 15))
        )
        true = _concluded(rows, *limits)
        expected = f"{_shown(true)} ({told})"
        given = trial.call(conclude, [dict(row) for row in rows], *limits, expected=expected)
        if not isinstance(given, Mapping) or set(given) != set(true):
            raise NotYet(f"a dict of {', '.join(true)}", repr(given))
        for key, value in true.items():
            if key == "sizes_ms":
                answer: Any = _as_list(given[key])
                why = _why_sizes(rows, limits, answer)
            else:
                answer, why = bool(given[key]), _why_largest(rows)
            if answer != value:
                raise NotYet(f"{key} = {value} ({told}): {why}", f"{key} = {answer}")
        trial.ok(f"{told}: {_shown(true)}")


def _table(trial: Trial, off: float, width: float) -> list[dict[str, float]]:
    """Rows as `latency.table` gives them; `off` and `width` as shares of what is predicted.

    The interval has that width for the largest chunks only: no other row says the same.
    """
    sizes = sorted(trial.rng.sample(CHUNK_SIZES_MS[1:-2], 4))
    sizes = [CHUNK_SIZES_MS[0], *sizes, trial.rng.choice(CHUNK_SIZES_MS[-2:])]
    rows = []
    for chunk_ms in sizes:
        predicted = packetisation_wait_ms(chunk_ms) - packetisation_wait_ms(sizes[0])
        added = predicted * (1 + off + trial.rng.uniform(-0.03, 0.03))
        payload = chunk_ms * _BYTES_PER_MS
        half = predicted * (width if chunk_ms == sizes[-1] else _WIDE if width < 1 else 1 / _WIDE)
        rows.append({
            "chunk_ms": chunk_ms, "added_ms": added, "predicted_ms": predicted,
            "low_ms": added - half, "high_ms": added + half,
            "headers_percent": 100 * overhead_bytes(payload, 1) / payload,
        })  # fmt: skip
    return trial.rng.sample(rows, len(rows))


def _limit(trial: Trial, rows: list[dict[str, float]]) -> float:
    """The added wait of one of the sizes: that size just keeps it."""
    return sorted(row["added_ms"] for row in rows)[trial.rng.randint(2, 4)]


def _concluded(
    rows: list[dict[str, float]], most_added_ms: float, most_headers_percent: float
) -> dict[str, Any]:
    largest = max(rows, key=lambda row: row["chunk_ms"])
    return {
        "sizes_ms": sorted(
            row["chunk_ms"]
            for row in rows
            if row["added_ms"] <= most_added_ms and row["headers_percent"] <= most_headers_percent
        ),
        "clear": not largest["low_ms"] <= 0 <= largest["high_ms"],
        "explained": _missed_ms(largest) <= 0.1 * largest["predicted_ms"],
    }


def _missed_ms(row: Mapping[str, float]) -> float:
    """By how much the prediction lies outside the interval; negative where it lies inside.

    The prediction counts waiting only, and a few blocks that agree by chance have an interval
    that is too narrow: neither makes half a chunk a wrong explanation of nine tenths.
    """
    return max(row["low_ms"] - row["predicted_ms"], row["predicted_ms"] - row["high_ms"])


def _as_list(given: Any) -> list[Any]:
    try:
        return list(given)
    except TypeError:
        raise NotYet("sizes_ms to be a list of chunk sizes", repr(given)) from None


def _shown(concluded: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in concluded.items())


def _why_largest(rows: list[dict[str, float]]) -> str:
    largest = max(rows, key=lambda row: row["chunk_ms"])
    return (
        f"the largest chunks, of {largest['chunk_ms']} ms (rows come in any order), add "
        f"{largest['low_ms']:.1f} to {largest['high_ms']:.1f} ms, predicted are "
        f"{largest['predicted_ms']:.1f} ms (a tenth: {0.1 * largest['predicted_ms']:.1f})"
    )


def _why_sizes(
    rows: list[dict[str, float]], limits: tuple[float, float], given: list[float]
) -> str:
    """The first size that is wrongly there, or missing."""
    most_added_ms, most_percent = limits
    right = _concluded(rows, *limits)["sizes_ms"]
    ordered = sorted(rows, key=lambda row: row["chunk_ms"])
    row = next(
        (row for row in ordered if (row["chunk_ms"] in given) != (row["chunk_ms"] in right)), None
    )
    if row is None:
        return "the sizes of the table, smallest first"
    return (
        f"{row['chunk_ms']} ms add {row['added_ms']:.1f} ms with headers of "
        f"{row['headers_percent']:.1f} %, the limits are {most_added_ms:.1f} ms and "
        f"{most_percent:.1f} %"
    )


CHECKS: Final = (
    predicted_first, wait, packetisation, marks_add_up, headers, conclusion,
)  # fmt: skip
