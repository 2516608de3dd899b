"""Weights of Stanchion's detectors, as files; `stanchion` verifies their digests before it loads them."""

__version__ = "1.0.0"
