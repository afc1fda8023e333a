"""Do activations keep their size as a model gets wider, with and without CompleteP?

    python -m tests.benchmarks.coordinate_check

Trains models of 64 to 1,024 columns (Muon: to 512) for 10 steps on one batch of random tokens, and
fits the power
of the width by which each activation's root mean square grows: 0 is the same at every width.
"""

import sys

from tests.benchmarks import measuring

sys.path.insert(0, str(measuring.HERE.parent / "helpers"))

import torch
from coordinates import activation_sizes, config_of, exponents

WIDTHS = {"adamw": (64, 128, 256, 512, 1024), "muon": (64, 128, 256, 512)}  # Muon's are slow


def main() -> None:
    """Measure and write the results."""
    torch.set_num_threads(1)
    figures = {}
    for optimizer, widths in WIDTHS.items():
        for parametrization in ("standard", "completep"):
            sizes = {}
            for width in widths:
                config = config_of(width, parametrization, optimizer=optimizer)
                sizes[width] = activation_sizes(config)
                print(optimizer, parametrization, width, sizes[width], flush=True)
            figures[f"{optimizer}, {parametrization}"] = {
                "exponent_of_the_width": rounded(exponents(sizes)),
                "root_mean_square_after_10_steps": {
                    str(width): {name: round(of[10], 4) for name, of in rows.items()}
                    for width, rows in sizes.items()
                },
            }
    measuring.write("coordinate_check", figures)


def rounded(table: dict[str, dict[int, float]]) -> dict[str, dict[str, float]]:
    """Two decimals, and keys that JSON can hold."""
    return {
        name: {str(step): round(value, 2) for step, value in row.items()}
        for name, row in table.items()
    }


if __name__ == "__main__":
    main()
