"""What is installed with the package is under licenses that go with ours, and the page says so."""

import re

import pytest
from support import extras
from support.licenses import EXTRAS, PAGE, closure, licenses

#: Licenses that ask for no more than notices.
PERMISSIVE = re.compile(
    r"(3-Clause )?BSD( License)?|BSD-[23]-Clause|0BSD|MIT(-CMU)?( License)?|Zlib|CC0-1\.0|PSF-2\.0"
    r"|Apache( Software)?( License)?([ -]2\.0)?|Python Software Foundation License"
)
#: Not permissive, or not said: each is explained on the page.
EXPLAINED = {"certifi", "namex", "shtab", "tqdm"}


def permissive(text):
    """Whether all parts, or one of alternatives, are permissive."""
    return any(
        all(PERMISSIVE.fullmatch(part.strip(" ()")) for part in re.split(" AND |; ", choice))
        for choice in text.split(" OR ")
    )


@pytest.fixture(scope="module")
def found():
    extras.needed("piplicenses")
    return licenses()


def test_every_license_is_permissive_or_explained(found):
    other = {name: text for name, (_, text) in found.items() if not permissive(text)}
    assert set(other) <= EXPLAINED, other
    assert all("GPL" not in text for _, text in found.values())


def test_the_page_lists_what_is_installed_and_explains_the_rest(found):
    page = PAGE.read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| ([a-z0-9-]+) \| [^|]+ \| (.+) \|$", page, re.M))
    assert set(listed) - {"package"} == set(found)
    prose = page.partition("| package |")[0]
    assert all(name in prose for name in EXPLAINED)


def test_extras_of_users_are_all_looked_at():
    extras.needed("mlxtend", "examples")
    assert {"keras", "tensorflow", "requests"} <= closure("keras-fwd")
    assert {"jinja2", "mlxtend", "tensorboard"} <= closure("keras-fwd", EXTRAS)


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("GPL-3.0-or-later", False),
        ("MIT AND MPL-2.0", False),
        ("UNKNOWN", False),
        ("Apache-2.0 OR BSD-2-Clause", True),
        ("GPL-2.0 OR MIT", True),
        ("BSD-3-Clause AND Zlib", True),
    ],
)
def test_a_planted_license_is_judged(text, fine):
    assert permissive(text) is fine
