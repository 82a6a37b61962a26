"""The functions and policies for the checks of chapter 6."""

from tests.course.servers import Servers

ODD = {
    "in numpy's own types": """
import numpy as np
if "score" in globals():
    right = score
    def score(times, end_s):
        cut, seconds = right(times, end_s)
        return np.bool_(cut), None if seconds is None else np.float64(seconds)
if "line" in globals():
    kept = line
    def line(points):
        return np.array(kept(points))
if "Patience" in globals():
    class Patience(Patience):
        def wait_s(self):
            return np.float64(super().wait_s())
""",
    "written otherwise": """
def score(times, end_s):
    cut, found = 0, None
    for time in times:
        if time < end_s:
            cut += 1
        elif found is None:
            found = time
    return [cut > 0, None if found is None else found - end_s]
def line(points):
    return (
        point for point in sorted(set(points), key=lambda point: point[0])
        if not any(
            other != point and other[0] <= point[0] and other[1] <= point[1] for other in points
        )
    )
class Follows:
    mean, count = 0.6, 1
    def wait_s(self):
        return 1.6 * self.mean
    def paused(self, seconds):
        self.count += 1
        self.mean += (seconds - self.mean) / self.count
def Patience():
    return Follows()
""",
}

FIXED = """
class Patience:
    def wait_s(self):
        return {}
    def paused(self, seconds):
        pass
"""

WRONG = {
    "ch6.score": {
        "the first decision": """
def score(times, end_s):
    return times[0] < end_s, times[0] - end_s
""",
        "negative dead air": """
def score(times, end_s):
    if not times:
        return False, None
    return min(times) < end_s, max(times) - end_s
""",
        "nothing counts as zero": """
def score(times, end_s):
    after = [time for time in times if time >= end_s]
    return len(after) < len(times), after[0] - end_s if after else 0.0
""",
        "a constant": """
def score(times, end_s):
    return False, 0.5
""",
        "only dead air": """
def score(times, end_s):
    return min((time - end_s for time in times if time >= end_s), default=None)
""",
    },
    "ch6.line": {
        "every point": """
def line(points):
    return sorted(points)
""",
        "not sorted": """
right = line
def line(points):
    return right(points)[::-1]
""",
        "in the order in which they came": """
right = line
def line(points):
    return [one for one in points if one in right(points)]
""",
        "the best two": """
def line(points):
    return [min(points), min(points, key=lambda one: one[1])]
""",
        "gives nothing": """
def line(points):
    sorted(points)
""",
        "equals are kept": """
def line(points):
    best = []
    for one in sorted(points):
        if not best or one[1] <= best[-1][1]:
            best.append(one)
    return best
""",
    },
    "ch6.policy": {
        "a fixed wait": FIXED.format(0.6),
        "the longest pause there is": FIXED.format(1.6),
        "milliseconds": FIXED.format(600),
        "the mean of no pauses": """
class Patience:
    def __init__(self):
        self.pauses = []
    def wait_s(self):
        return 1.5 * sum(self.pauses) / len(self.pauses)
    def paused(self, seconds):
        self.pauses.append(seconds)
""",
        "words": FIXED.format("'half a second'"),
        "the chapter's callers by heart": """
class Patience:
    by_heart = [0.2, 1.0, 0.4, 0.3, 0.9, 0.6, 0.25, 0.7, 0.5]
    callers = 0
    def __init__(self):
        self.wait = self.by_heart[Patience.callers % 9]
        Patience.callers += 1
    def wait_s(self):
        return self.wait
    def paused(self, seconds):
        pass
""",
    },
}

CH6 = Servers(
    6,
    WRONG,
    ODD,
    values={"ch6.score": "score", "ch6.line": "line", "ch6.policy": "Patience"},
)
