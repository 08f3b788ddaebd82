"""``python -m dspynb``."""

import sys

from dspynb.cli import main

sys.exit(main())
