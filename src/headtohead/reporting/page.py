"""Markdown to one HTML page that needs no network: own style, images inlined, no HTML taken from the text."""

import base64
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token

from headtohead.reporting.tables import Marked, Table

# What may begin markup within a line, here or on GitHub; an underscore inside a word cannot.
SPECIAL = re.compile(r"([\\`*\[\]<|&~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")

SCROLLS = 'class="scroll" role="region" aria-label="table" tabindex="0"'  # so that a keyboard can scroll it


def escape(text: str) -> str:
    """`text` as Markdown that shows it unchanged in a line or a cell: no markup, and newlines become spaces."""
    parts = text.parts if isinstance(text, Marked) else [(text, False)]
    return "".join(f"**{_escape(part)}**" if strong else _escape(part) for part, strong in parts).strip()


def lay_out(table: Table) -> str:
    """A table in Markdown, with columns of numbers aligned right."""
    alignment = [":---" if i < table.words else "---:" for i in range(len(table.header))]
    rows = [map(escape, table.header), alignment, *(map(escape, row) for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fill(template: str, package: str = __package__, **values: Any) -> str:
    """A filled template from `package`. It has two filters: `text` escapes a text, `table` lays out a table."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                              keep_trailing_newline=True, autoescape=template.endswith(".html.jinja"))
    environment.filters |= {"text": escape, "table": lay_out}
    source = files(package).joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)


def to_html(markdown: str, folder: Path) -> str:
    """A whole page from CommonMark with tables; images are relative to `folder` and become part of the page.

    Everything before the first section is the page's opening, and a list of the sections follows it.
    HTML within the Markdown is shown as text.
    """
    parser = _parser(folder)
    tokens = parser.parse(markdown)
    titles = {i: tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"}
    for i, title in titles.items():
        tokens[i].attrSet("id", _slug(title))
    sections = {i: title for i, title in titles.items() if tokens[i].tag == "h2"}
    first = min(sections, default=len(tokens))
    opening, rest = (parser.renderer.render(part, parser.options, {}) for part in (tokens[:first], tokens[first:]))
    return fill("page.html.jinja", title=next(iter(titles.values()), ""), opening=opening, rest=rest,
                sections=[(_slug(title), title) for title in sections.values()])


def _parser(folder: Path) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", lambda _, tokens, i, *rest: _image(tokens[i], folder))
    parser.add_render_rule("table_open", lambda *_: f"<div {SCROLLS}><table>\n")
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


def _slug(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _escape(text: str) -> str:
    return SPECIAL.sub(r"\\\1", re.sub(r"[ \t\n\r\f\v]+", " ", text))


def _image(token: Token, folder: Path) -> str:
    """The image as a data URI: if SVGs were inlined, their ids could clash."""
    data = base64.b64encode((folder / str(token.attrs["src"])).read_bytes()).decode()
    alternative = _attribute(_plain(token.children or []))
    return f'<img alt="{alternative}" src="data:image/svg+xml;base64,{data}">'


def _plain(tokens: Sequence[Token]) -> str:
    return "".join(token.content for token in tokens)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
