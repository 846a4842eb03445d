"""`python -m beft`, see `command_line`."""

import signal
import sys


def main() -> int:
    """The command line of this process, in which Ctrl-C at any moment ends in status 130 and no traceback."""
    try:
        from .command_line import main as run  # an import takes time too, in which one may press Ctrl-C

        status = run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left is the interpreter's own end
    return status


if __name__ == "__main__":
    sys.exit(main())
