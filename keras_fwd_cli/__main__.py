"""`python -m keras_fwd_cli`, where the script `keras-fwd` is not on the path."""

import sys

from keras_fwd_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
