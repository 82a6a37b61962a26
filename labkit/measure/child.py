"""Run a module, or a file of Python, as a child that ends with its parent.

It is started as ``python -m labkit.measure.child NAME ARGUMENTS``.

The parent holds the other end of this process's standard input and writes nothing to it. When the
parent ends, in whatever way, the kernel closes that end, and this process terminates itself and
what it started. That holds for a parent that was killed, too, which no handler or `finally` of the
parent could see to, and on every Unix. (Linux's `PR_SET_PDEATHSIG` fires when the *thread* that
forked ends.)

On the signal `SIGUSR1` it writes where it is, even if its event loop is blocked.
"""

import faulthandler
import os
import runpy
import signal
import sys
import threading
import time
from typing import Final

_STDIN: Final = 0
_LAST_WORDS_S: Final = 10.0
"""How long a terminated process may take to end in order before it is cut off."""


def _end_with_parent() -> None:
    # os.read and not sys.stdin: a thread that waits inside of sys.stdin holds its lock, and the
    # interpreter aborts when it ends meanwhile.
    while os.read(_STDIN, 1024):
        pass
    # What it started as well, which is of its group; one that it does not lead is somebody else's.
    end = os.killpg if os.getpgrp() == os.getpid() else os.kill
    end(os.getpid(), signal.SIGTERM)
    time.sleep(_LAST_WORDS_S)
    end(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the module or the file that the command line names, with the arguments after it."""
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, all_threads=False)
    del sys.argv[0]
    if sys.argv[0].endswith(".py"):
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))  # as `python FILE.py` has it
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
