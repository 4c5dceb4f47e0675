"""The local page: the same plans, commands and reports as the command line, for people who do not type."""
