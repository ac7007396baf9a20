"""enginebench compares LLM inference engines: it launches them, drives them with a load it can prove it delivered, and judges."""

__version__ = "0.2.0"
