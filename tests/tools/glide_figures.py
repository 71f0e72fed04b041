"""Makes the figures that PPI++ is tested against, with glide-py (Python 3.12): python tests/tools/glide_figures.py.

The package needs a newer Python than this project: install glide-py into an environment of its own.
"""

from importlib.metadata import version

import numpy as np
from glide.estimators import PPIMeanEstimator

# Reviewed rows (both, only the model, only people, neither), and the other rows (called violating, of how many).
CASES = (
    ((12, 5, 8, 75), (160, 900)),
    ((60, 10, 40, 290), (90, 600)),
    ((30, 60, 20, 90), (4000, 9000)),
    ((200, 1, 1, 198), (50, 100)),
    ((5, 20, 15, 10), (300, 500)),
)

if __name__ == "__main__":
    print(f"# glide-py {version('glide-py')}")
    for (both, only_model, only_people, neither), (hits, size) in CASES:
        said = [1.0] * (both + only_model) + [0.0] * (only_people + neither)
        said += [1.0] * hits + [0.0] * (size - hits)
        meant = [1.0] * both + [0.0] * only_model + [1.0] * only_people + [0.0] * neither + [np.nan] * size
        found = PPIMeanEstimator().estimate(np.array(meant), np.array(said))
        print(f"({(both, only_model, only_people, neither)}, {(hits, size)}, {found.mean:.12g}, {found.std:.12g}),")
