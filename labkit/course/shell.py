"""The shell of IPython in which the code runs: a notebook's, or one that is typed into."""

import sys
from typing import Any


def current_shell() -> Any:
    """That shell; None where the code runs in no cell."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return get_ipython()
