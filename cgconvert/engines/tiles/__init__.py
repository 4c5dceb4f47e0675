"""Pictures of any size through a network, tile by tile, with the result of the whole picture."""
