"""Tensors around the network: pixels and planes to images and back, copies between host and device."""
