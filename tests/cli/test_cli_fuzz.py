"""A few damaged files; ten thousand are in `faults/test_fuzzed_files.py`."""

import numpy as np
import pytest
from faults import file_mutations as files
from faults.test_fuzzed_files import bench, originals  # noqa: F401 - fixtures

MUTATIONS = 8


@pytest.mark.filterwarnings("ignore")  # what libraries remark on a damaged file is not ours
@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, files.mutated) for name in ("data.csv", "data.parquet", "data.npz")),
        *((name, files.mutated) for name in ("model.keras", "report.json")),
        *((name, files.rewritten) for name in ("data.npz", "model.keras")),
    ],
)
def test_no_damaged_file_ends_in_a_traceback(bench, name, change):  # noqa: F811
    random = np.random.default_rng(1)
    contents = (bench.originals / name).read_bytes()
    for _ in range(MUTATIONS):
        bench.give(name, change(random, contents))
    assert 2 in bench.codes
