"""A hook for MkDocs: links out of ``docs/``, to examples or the README, lead to the repository on the web.

So the same link works in a clone, on the repository's pages and on the site. A broken link is a warning, which makes
``mkdocs build --strict`` fail.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()((?:\.\./)+[^)#\s]*)")
BRANCH = "main"

log = logging.getLogger("mkdocs.hooks.docs_links")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with its links out of the docs folder made absolute."""
    docs = Path(config.docs_dir)

    def lead(link: re.Match[str]) -> str:
        inside = posixpath.normpath(posixpath.join(docs.name, posixpath.dirname(page.file.src_uri), link[1]))
        if inside.startswith(f"{docs.name}/"):
            return link[1]
        if not (docs.parent / inside).exists():
            log.warning("%s: the link %s leads nowhere", page.file.src_uri, link[1])
        return f"{config.repo_url}/blob/{BRANCH}/{inside}"

    return LINK.sub(lead, markdown)
