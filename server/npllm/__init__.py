"""npllm: an editor assistant that learns from the person who uses it, while that person rests."""

__version__ = "0.1.0"
