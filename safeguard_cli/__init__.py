"""safeguard: label JSONL and CSV against a written policy, on your own machine."""

__version__ = "0.1.0"
