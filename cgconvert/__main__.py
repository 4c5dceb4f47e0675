"""`python -m cgconvert`."""

from cgconvert.cli import main

main()
