"""``python -m sindyrl``: the command line."""

import sys

from sindyrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
