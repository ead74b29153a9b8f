"""``python -m sftplug.testing FOLDER``: run the tests of a package of plugins, and write what was found."""

import sys

from sftplug.testing.examine import main

sys.exit(main())
