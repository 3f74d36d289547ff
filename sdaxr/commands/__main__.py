"""``python -m sdaxr.commands`` is the command ``sdaxr``."""

from sdaxr.commands.cli import main

if __name__ == "__main__":
    main()
