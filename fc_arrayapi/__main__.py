"""``python -m fc_arrayapi``: the command fc-arrayapi."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
