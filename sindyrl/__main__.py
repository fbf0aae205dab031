"""``python -m sindyrl``: the command line."""

import sys

from sindyrl.cli import main

sys.exit(main())
