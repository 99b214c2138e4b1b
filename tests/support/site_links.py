"""What is wrong with the links of a built site, without a network."""

import html.parser
import pathlib
import re
import urllib.parse

# Attributes that a browser fetches on its own, and one that a reader follows.
LOADED = {("img", "src"), ("script", "src"), ("source", "src"), ("iframe", "src"), ("link", "href")}
FOLLOWED = {("a", "href")}


class Page(html.parser.HTMLParser):
    """The ids of a page, and its links as `(link, is it loaded)`."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (tag, name) == ("a", "name"):
                self.ids.add(value)
            elif (tag, name) in LOADED | FOLLOWED and value:
                self.links.append((value, (tag, name) in LOADED))


def problems(folder):
    """A line for each link that leads nowhere, and for each that fetches from elsewhere."""
    folder = pathlib.Path(folder).resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    for path, page in pages.items():
        for link, loaded in page.links:
            problem = _problem(link, loaded, path, pages)
            if problem:
                yield f"{path.relative_to(folder)}: {link}: {problem}"
    for path in folder.rglob("*.css"):
        for link in re.findall(
            r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", path.read_text()
        ):
            yield f"{path.relative_to(folder)}: {link}: loaded from elsewhere"


def _problem(link, loaded, path, pages):
    parts = urllib.parse.urlsplit(link)
    if parts.scheme == "data" or (parts.scheme == "mailto" and "@" in parts.path):
        return None
    if parts.scheme or parts.netloc:
        if loaded:
            return "loaded from elsewhere"
        named = re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", parts.netloc)
        sound = parts.scheme == "https" and named and not re.search(r"[\s<>\"]", link)
        return None if sound else "no address of the form https://host/path"
    target = path
    if parts.path:
        target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
        target = target / "index.html" if target.is_dir() else target
    if not target.exists():
        return "no such file"
    anchor = urllib.parse.unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].ids:
        return "no such place in the page"
    return None
