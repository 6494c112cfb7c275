"""Whether a browser's request comes from our own pages. CORS does not cover WebSockets, and cookies travel by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from serve_app.errors import CrossSite

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Origins:
    """The origins that count as ours.

    Args: public_url, where clients reach us; cors_origins, other pages that may use the API with the cookie.
    """

    def __init__(self, public_url: str, cors_origins: Sequence[str]) -> None:
        self._ours = {_origin(public_url), *(_origin(url) for url in cors_origins)}

    def is_ours(self, headers: Headers) -> bool:
        """Whether the `Origin` header, or where there is none `Sec-Fetch-Site`, names one of our pages."""
        origin = headers.get("origin")
        if origin is not None:
            host = headers.get("host", "")
            return _origin(origin) in self._ours or urlsplit(origin).netloc.lower() == host.lower() != ""
        return headers.get("sec-fetch-site") in {"same-origin", "none"}

    def check_cookie_request(self, method: str, headers: Headers) -> None:
        """A request that the session cookie authorises must come from our pages unless it only reads.

        Raises: CrossSite.
        """
        if method not in SAFE_METHODS and not self.is_ours(headers):
            raise CrossSite("This request came from another site's page.", next_step="Use our own page, or an API key.")

    def check_foreign_form(self, headers: Headers) -> None:
        """A login or sign-up that a browser sends from another site's page is refused (login CSRF); programs send no Origin.

        Raises: CrossSite.
        """
        foreign = headers.get("origin") is not None or headers.get("sec-fetch-site") in {"cross-site", "same-site"}
        if foreign and not self.is_ours(headers):
            raise CrossSite("This login came from another site's page.", next_step="Use our own page.")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()
