"""Links that work in the repository work on the site too.

The pages link to files (`../examples/08_burgers.py`, `benchmarks/README.md`), so that they can be
read where they lie. On the site those are other pages.
"""

import posixpath
import re
from pathlib import Path

# Files of the repository that are pages under another name.
PAGES = {
    "README.md": "/index.md",
    "CHANGELOG.md": "/changelog.md",
    "CONTRIBUTING.md": "/contributing.md",
    "benchmarks/README.md": "/measurements.md",
}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(?=[)#])")


def setup(app):
    """Makes this file an extension of Sphinx."""
    app.connect("source-read", _read)
    app.connect("include-read", _included)
    return {"parallel_read_safe": True}


def on_the_site(link: str, folder: str) -> str:
    """Where a link in a file in `folder` (of the repository) leads on the site.

    >>> on_the_site("../examples/08_burgers.py", "docs")
    '/gallery/08_burgers.rst'
    >>> on_the_site("docs/guides/devices.md", ".")
    '/guides/devices.md'
    >>> on_the_site("../benchmarks", "docs")
    '/measurements.md'
    """
    path = posixpath.normpath(posixpath.join(folder, link))
    if path == "benchmarks":
        path = "benchmarks/README.md"
    if path in PAGES:
        return PAGES[path]
    if example := re.fullmatch(r"examples/(\d\w+)\.py", path):
        return f"/gallery/{example[1]}.rst"
    return path.removeprefix("docs") if path.startswith("docs/") else link


def _rewritten(text: str, folder: str) -> str:
    return LINK.sub(lambda match: on_the_site(match[1], folder), text)


def _read(app, docname, source) -> None:
    if str(app.env.doc2path(docname)).endswith(".md"):
        source[0] = _rewritten(source[0], posixpath.dirname(f"docs/{docname}"))


def _included(app, path, docname, content) -> None:
    root = Path(app.srcdir).parent
    file = (Path(app.srcdir) / path).resolve()
    if file.suffix == ".md" and file.is_relative_to(root):
        folder = file.relative_to(root).parent.as_posix()
        content[0] = _rewritten(content[0], folder)
