"""What ``sftplug`` and ``python -m sftplug`` run: the command line, once it is imported."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported is told as it is later."""
    try:
        from sftplug.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    try:
        run()
    finally:
        _let_ctrl_c_end_it()


def _let_ctrl_c_end_it() -> None:
    """Let Ctrl-C end this process at once while Python tidies up.

    All that matters is done; the exception that Python would make of it would be printed as one that was ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
