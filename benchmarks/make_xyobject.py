"""XYObject, the squares of the PyPI package disent, as an npz file that data.name=arrays reads.

    pip install disent==0.8.0
    python benchmarks/make_xyobject.py xyobject.npz           # all 75,000 images of 64 x 64 pixels
    python benchmarks/make_xyobject.py small.npz --small      # 3,456 of 16 x 16: tests/data/xyobject.npz

    fqvae train smoke data.name=arrays data.root=xyobject.npz

The images show a square on black, whose place, size and colour are the factors. disent has the MIT licence,
copyright 2021 Nathan Juraj Michlo.
"""

from __future__ import annotations

import argparse

import numpy as np

# 12 x 12 places, 2 sizes, 6 colours of 2 shades.
SMALL = {
    "grid_size": 16,
    "grid_spacing": 1,
    "min_square_size": 3,
    "max_square_size": 5,
    "square_size_spacing": 2,
    "palette": "rainbow_2",
}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", help="the npz file")
    parser.add_argument("--small", action="store_true", help="few small images")
    options = parser.parse_args()
    from disent.dataset.data import XYObjectData

    data = XYObjectData(**(SMALL if options.small else {}))
    images = np.stack([data._get_observation(number) for number in range(len(data))])
    factors = np.stack([data.idx_to_pos(number) for number in range(len(data))])
    np.savez_compressed(options.out, images=images, factors=factors, factor_names=list(data.factor_names))
    print(f"{options.out}: {images.shape[0]} images {images.shape[1:]}, factors {data.factor_sizes}")


if __name__ == "__main__":
    main()
