"""``python -m sftplug`` is the same as ``sftplug``."""

from sftplug.cli import main

if __name__ == "__main__":
    main()
