"""The site's hook (``properdocs.yml``): pages that read well on a forge read well there too.

Anchors are those of a forge. A link out of docs/, such as ``../README.md``, becomes one to the
repository; one that leads nowhere is a warning, which ``--strict`` makes an error.
"""

from __future__ import annotations

import logging
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # the site's builder loads this file by its path
    sys.path.insert(0, str(ROOT))

from tests.docs_markdown import slug  # noqa: E402

log = logging.getLogger("properdocs.hooks.forge")


def on_config(config: Any) -> Any:
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_also: Any) -> str:
    source = page.file.src_uri
    return rewritten(markdown, source, f"{config.repo_url.rstrip('/')}/blob/main/")


def rewritten(markdown: str, source: str, forge: str) -> str:
    """:param source: the page's path below docs/.

    :param forge: where the repository's files are.
    """

    def link(found: re.Match[str]) -> str:
        target, hash_, anchor = found[1].partition("#")
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), target))
        if path.startswith("docs/"):
            return found[0]
        if not (ROOT / path).exists():
            log.warning("%s: a link to %s, which does not exist", source, path)
        return f"]({forge}{path}{hash_}{anchor})"

    return re.sub(r"\]\((\.\./[^()\s]+)\)", link, markdown)
