"""`python -m ilm_jax VERB …` is `ilm VERB …`."""

import sys

from ilm_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
