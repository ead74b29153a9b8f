"""Pages of HTML in a real browser: what it makes of them."""

import html.parser
import shutil

import pytest
from patience import run

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.needs("a browser (Debian's chromium)", there=CHROMIUM is not None)
HOSTILE = [
    "<script>document.title = 'pwned'</script>",
    '"><img src=x onerror="document.title=\'pwned\'">',
    "</span></div></section><h1>escaped</h1>",
    "&lt;b&gt; &amp; &#60;i&#62;",
    "\u202eright to left\u202c \x1b[31mred\x07 \ufffe",
    "javascript:alert(1) 'single' `back` {{ braces }}",
]


class Page(html.parser.HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.titles, self.data = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "span" and "data-about" in dict(attributes):
            self.titles.append(dict(attributes)["data-about"])

    def handle_data(self, data):
        self.data.append(data)

    @property
    def text(self):
        return "".join(self.data)

    def all(self, tag, kind=None):
        """Return the attributes of every `tag`, of those with the class `kind` if it is given."""
        return [
            keys for name, keys in self.tags if name == tag and (kind is None or kind in keys.get("class", "").split())
        ]

    def is_inert(self):
        """Whether nothing in the page runs, and nothing is fetched or led to."""
        names = {name for name, _ in self.tags}
        keys = {key for _, attributes in self.tags for key in attributes}
        return not names & {"script", "img", "iframe", "link", "object", "form", "a"} and not any(
            key in ("src", "href", "action") or key.startswith("on") for key in keys
        )


def shown(page, profile):
    """Return the page as the browser holds it after it has loaded."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
    command = [CHROMIUM, *flags, "--dump-dom", page.as_uri()]
    done = run(command)
    assert done.returncode == 0, done.stderr
    return done.stdout
