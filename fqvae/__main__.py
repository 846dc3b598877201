"""`python -m fqvae` is the command `fqvae`."""

import sys

from fqvae.cli import main

if __name__ == "__main__":
    sys.exit(main())
