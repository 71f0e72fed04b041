"""Helpers that tests share: small models, engines and servers that misbehave, and a bench for whole runs."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
