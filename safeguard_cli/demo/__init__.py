"""The demo model: its GGUF, its model card, and how it was trained."""
