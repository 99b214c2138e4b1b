"""How much is drawn at random: a part of it in every run, all of it with `make faults`."""

import os

ALL = bool(os.environ.get("FAULTS_ALL"))
