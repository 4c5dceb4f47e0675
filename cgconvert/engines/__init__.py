"""Engines: a generator made fast on the machine at hand. `choose.create_engine` is the way in."""
