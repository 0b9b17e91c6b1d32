"""Check a rendered book: every link inside it leads somewhere, and no page loads anything outside.

python -m tools.check_site _build/html
"""

import argparse
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
NOT_LOADED = {"canonical", "search", "index", "next", "prev", "author", "license", "copyright"}
FOREIGN = re.compile(r"(?:import|fetch|url)\s*\(\s*['\"]?(https?://[^'\")\s]+)")


class Page(HTMLParser):
    """The ids of a page, where it links to, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        text = path.read_text(encoding="utf-8")
        self.feed(text)
        self.loads += FOREIGN.findall(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect from one tag."""
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values.get("id", ""), values.get("name", "")}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        target = values.get(LOADS.get(tag, ""), "")
        if target and values.get("rel") not in NOT_LOADED:
            self.loads.append(target)


def problems(site: Path) -> Iterator[str]:
    """Yield every broken link and every request that would leave the site."""
    files = sorted(site.rglob("*.html"))
    pages = {path: Page(path) for path in files if "_static" not in path.parts}
    for path, page in pages.items():
        name = path.relative_to(site)
        for target in page.loads:
            if urlsplit(target).netloc:
                yield f"{name} loads {target} from another site"
            elif not target.startswith("data:") and not _file(path, target, site).exists():
                yield f"{name} loads {target}, which is not there"
        for link in page.links:
            yield from (f"{name}: {problem}" for problem in _broken(path, link, site, pages))


def _broken(path: Path, link: str, site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return
    target = _file(path, link, site)
    if not target.exists():
        yield f"link to {link}, which is not there"
    elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        yield f"link to {link}: the page has no such place"


def _file(path: Path, link: str, site: Path) -> Path:
    """Return the file that a link on a page means."""
    local = unquote(urlsplit(link).path)
    if not local:
        return path
    target = site / local.lstrip("/") if local.startswith("/") else path.parent / local
    return target.resolve()


def main() -> None:
    """Print the problems of a site; exit 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    found = sorted(set(problems(parser.parse_args().site.resolve())))
    print("\n".join(found) or "every link inside the book leads somewhere; nothing leaves the site")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
