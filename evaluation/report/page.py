"""A page of HTML: well-formed, in one file, and without any script."""

import html
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_CSS = pathlib.Path(__file__).with_name('style.css')


class Markup(str):
  """Text that is HTML already."""


class Section(NamedTuple):
  """A part of the page that the table of contents lists."""

  anchor: str
  title: str
  body: Markup
  # (anchor, title) of what the table of contents lists below it.
  parts: Sequence[tuple[str, str]] = ()


def escape(content: str) -> Markup:
  """Makes text HTML, unless it is already."""
  if isinstance(content, Markup):
    return content
  return Markup(html.escape(content))


def tag(
  name: str, content: str | Iterable[str] = '', **attributes: str
) -> Markup:
  """Returns an element; `class_` stands for `class`."""
  parts = [content] if isinstance(content, str) else content
  names = ''.join(
    f' {key.rstrip("_")}="{html.escape(value)}"'
    for key, value in attributes.items()
    if value
  )
  inside = ''.join(map(escape, parts))
  return Markup(f'<{name}{names}>{inside}</{name}>')


def join(parts: Iterable[str]) -> Markup:
  """Puts pieces of a page one after the other."""
  return Markup('\n'.join(escape(part) for part in parts if part))


def paragraph(*parts: str) -> Markup:
  """Returns a paragraph."""
  return tag('p', parts)


def warning(*parts: str) -> Markup:
  """Returns a box that is seen."""
  return tag('div', parts, class_='warning', role='note')


def table(
  header: Sequence[str], rows: Iterable[Sequence[str]], class_: str = ''
) -> Markup:
  """Returns a table whose first column names the rows.

  It scrolls by itself where it is wider than the page.
  """
  head = tag('tr', [tag('th', cell, scope='col') for cell in header])
  body = [
    tag(
      'tr', [tag('th', row[0], scope='row')] + [tag('td', c) for c in row[1:]]
    )
    for row in rows
  ]
  inside = [tag('thead', head), tag('tbody', body)]
  return tag('div', tag('table', inside, class_=class_), class_='scroll')


def details(summary: str, *parts: str) -> Markup:
  """Returns what opens on a click."""
  return tag('details', [tag('summary', summary), *parts])


def document(title: str, lead: str, sections: Sequence[Section]) -> str:
  """Returns the whole page."""
  contents = [
    tag('li', [_link(s.anchor, s.title), _contents_below(s)]) for s in sections
  ]
  main = [tag('h1', title), escape(lead)] + [
    tag('section', [tag('h2', s.title), s.body], id=s.anchor) for s in sections
  ]
  head = join(
    [
      Markup('<meta charset="utf-8"/>'),
      Markup(
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
      ),
      tag('title', title),
      tag('style', Markup(_CSS.read_text())),
    ]
  )
  navigation = tag('nav', tag('ol', contents))
  body = join([navigation, tag('main', join(main))])
  return (
    '<!DOCTYPE html>\n'
    f'<html lang="en">\n<head>\n{head}\n</head>\n'
    f'<body>\n{body}\n</body>\n</html>\n'
  )


def _contents_below(section: Section) -> Markup:
  if not section.parts:
    return Markup('')
  return tag('ul', [tag('li', _link(*part)) for part in section.parts])


def _link(anchor: str, title: str) -> Markup:
  return tag('a', title, href=f'#{anchor}')
