"""A video through the network: plan, route, pipeline, report."""
