"""Placeholder until the proof is merged."""

TOKENS = 700


def known(path, candidate):
    return None


def prove(path, key, candidate):
    raise NotImplementedError
