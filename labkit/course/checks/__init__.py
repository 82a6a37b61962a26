"""The checks, one module a chapter; `find_checks` knows them all by name."""

from typing import Final

from labkit.course.checks import ch0, ch1, ch2, ch3, ch4, ch5, ch6
from labkit.course.checks.check import Check
from labkit.errors import LabkitError

CHECKS: Final[tuple[Check, ...]] = (
    *ch0.CHECKS,
    *ch1.CHECKS,
    *ch2.CHECKS,
    *ch3.CHECKS,
    *ch4.CHECKS,
    *ch5.CHECKS,
    *ch6.CHECKS,
)
"""Every check, in the order of the course."""


def find_checks(name: str) -> list[Check]:
    """The checks of that name: of one check, of a chapter (`ch1`, `1`, `01_server`), or `all`.

    Raises:
        LabkitError: There are none; the error lists what there is.
    """
    number = name.removeprefix("ch").partition("_")[0]
    chapter = f"ch{int(number)}" if number.isdecimal() else name
    found = [one for one in CHECKS if name in ("all", one.name) or one.chapter == chapter]
    if not found:
        known = ", ".join(one.name for one in CHECKS)
        raise LabkitError(f"there is no check {name!r}; there are all, ch1 … and {known}")
    return found
