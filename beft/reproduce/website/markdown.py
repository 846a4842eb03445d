"""Markdown as HTML: formulas as MathML, links to the pages of the site, and no HTML of its own but a few plain tags."""

import html
import re
from collections.abc import Callable
from xml.etree import ElementTree

from markupsafe import Markup, escape
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from ...errors import BeftError
from .addresses import Addresses

_PLAIN_TAG = re.compile(r"</?(br|sub|sup|kbd|b|i|em|strong|details|summary|p|div|center)\s*/?>", re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")
_EMPTY = Markup("")
# What latex2mathml leaves as it is: an environment and a command by their likes, and signs behind \Big and \Bigl.
_LIKE = {"{aligned}": "{split}", r"\operatorname*": r"\operatorname"}
_FENCES = {r"\|": "\u2016", r"\Vert": "\u2016", r"\lVert": "\u2016", r"\rVert": "\u2016"}
_FENCES |= {r"\vert": "|", r"\lvert": "|", r"\rvert": "|", r"\langle": "\u27e8", r"\rangle": "\u27e9"}


def renderer(addresses: Addresses, source: str, page: str) -> Callable[[str], Markup]:
    """A function from the Markdown of one file to HTML.

    Args:
        addresses: where links lead to.
        source: the file, relative to the repository.
        page: the address of the page that it is for.

    The function raises BeftError: a link or image that is not there; a formula that cannot be converted.
    """
    convert = MarkdownWithMath(_Renderer(addresses, source, page))
    return lambda text: Markup(convert.render(text))  # noqa: S704 - made by _Renderer, which escapes text


def mathml(tex: str, display: str, source: str) -> str:
    """A formula as MathML, with its TeX as `alttext`.

    Args:
        tex: without its dollar signs.
        display: "inline" or "block".
        source: the file it stands in, for the error.

    Raises BeftError: it is no TeX that latex2mathml knows; or that package is not installed.
    """
    try:
        from latex2mathml.converter import convert_to_element
    except ImportError as error:
        raise BeftError("the site needs latex2mathml: install it with `pip install latex2mathml`") from error
    tex = tex.strip()
    known = tex
    for name, like in _LIKE.items():
        known = known.replace(name, like)
    try:
        tree = convert_to_element(known, display=display)
    except Exception as error:  # its own several exceptions, and KeyError and the like
        raise _unknown_formula(tex, source) from error
    for element in tree.iter():
        # It holds signs as character references, for a text that is not escaped afterwards. Here all text is.
        text = html.unescape(element.text or "")
        element.text = _FENCES.get(text, text)
        if text in _FENCES:
            element.set("stretchy", "true")
        if element.tag != "mtext" and re.search(r"[\\&]", element.text):
            raise _unknown_formula(tex, source)
    tree.set("alttext", tex)
    return ElementTree.tostring(tree, encoding="unicode")


def _unknown_formula(tex: str, source: str) -> BeftError:
    return BeftError(f"latex2mathml cannot read the formula {tex!r} of {source}: write it in other commands")


class _Renderer(IPythonRenderer):
    """nbconvert's renderer with the links, images, formulas and HTML of the site."""

    def __init__(self, addresses: Addresses, source: str, page: str) -> None:
        super().__init__(escape=True, allow_harmful_protocols=False, exclude_anchor_links=True)
        self._addresses, self._source, self._page = addresses, source, page

    def link(self, text: str, url: str, title: str | None = None) -> str:
        address = self._addresses.link(html.unescape(url), self._source, self._page)
        more = Markup(' title="{}"').format(title) if title else _EMPTY
        return Markup('<a href="{}"{}>{}</a>').format(address, more, Markup(text))  # noqa: S704 - rendered text

    def image(self, text: str, url: str, title: str | None = None) -> str:
        words = Markup(text).striptags()  # noqa: S704 - rendered text
        address = self._addresses.image(html.unescape(url), self._source, self._page)
        if address is None:  # a badge of another host: its words
            return escape(words)
        return Markup('<img src="{}" alt="{}" loading="lazy">').format(address, words)

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline", self._source)

    def block_math(self, body: str) -> str:
        return mathml(body, "block", self._source)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block", self._source)

    def block_html(self, html: str) -> str:
        return self.inline_html(html)

    def inline_html(self, html: str) -> str:
        """Without comments; of tags the plain ones without attributes stay, and the rest is shown as text."""
        text = _COMMENT.sub("", html)
        parts, end = [], 0
        for tag in _TAG.finditer(text):
            whole = _PLAIN_TAG.fullmatch(tag[0])
            parts += [escape(text[end : tag.start()]), tag[0] if whole else escape(tag[0])]
            end = tag.end()
        return "".join([*parts, escape(text[end:])])

    def block_mermaidjs(self, code: str) -> str:
        """As the text that it is: nothing here draws it."""
        return Markup("<pre>{}</pre>\n").format(code)
