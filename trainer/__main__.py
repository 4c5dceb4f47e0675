"""`python -m trainer`: the same commands as `cgconvert train`."""

from __future__ import annotations

from trainer.cli import main

if __name__ == "__main__":
    main()
