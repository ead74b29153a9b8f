"""What ``sftplug`` and ``python -m sftplug`` run: the command line, once it is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported is told as it is later."""
    try:
        from sftplug.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
