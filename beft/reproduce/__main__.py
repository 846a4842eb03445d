"""`python -m beft.reproduce`: run or publish the notebooks."""

import sys

from .run import main

if __name__ == "__main__":
    sys.exit(main())
