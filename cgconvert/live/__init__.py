"""Live conversion: the newest picture of a source, at a size at which the network keeps up."""
