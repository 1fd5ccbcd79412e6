"""Follow every link between built pages: `python docs/check_links.py FOLDER` fails where one leads nowhere."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page, and what it links to."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def broken_links(folder):
    """Return the number of links looked at, and a line for each that leads nowhere."""
    paths = [path.resolve() for path in folder.rglob("*.html") if "_static" not in path.parts]  # the theme's templates
    pages = {path: Page(path) for path in paths}
    broken, count = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                broken.append(f"{path.name}: {link}: no such file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                broken.append(f"{path.name}: {link}: no such anchor")
    return count, broken


if __name__ == "__main__":
    count, broken = broken_links(Path(sys.argv[1]))
    print(f"{count} links between pages, {len(broken)} lead nowhere", *broken, sep="\n")
    sys.exit(bool(broken) or not count)
