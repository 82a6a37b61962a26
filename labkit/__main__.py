"""The entry of the command line: `labkit`, and `python -m labkit`."""

import os
import signal
import sys


def main() -> None:
    """Run the command line, which is `labkit.cli`."""
    if os.name != "posix":
        sys.stderr.write(
            f"labkit runs on Linux and macOS, and not on {sys.platform}; "
            "on Windows, use it inside WSL (https://learn.microsoft.com/windows/wsl).\n"
        )
        raise SystemExit(1)
    # Until a command has something to clean up, Ctrl-C just ends the process. Python's own handler
    # raises KeyboardInterrupt wherever the program is: within an import, or while the
    # interpreter shuts down, where it can only be printed. A shell's background jobs ignore
    # Ctrl-C, and go on to do so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from labkit.cli.app import run_command_line  # only now, since its imports take a while

    run_command_line()


if __name__ == "__main__":
    main()
