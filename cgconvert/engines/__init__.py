"""Engines: a generator made fast on the machine at hand. `ready.create_job` is the way in."""
