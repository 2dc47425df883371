"""http_proxy, https_proxy and no_proxy, as curl and Go read them."""

from __future__ import annotations

import pytest

from argosy.remote.proxies import is_loopback, proxy_for

PROXY = {"https_proxy": "http://proxy:3128", "http_proxy": "proxy:8080"}


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("https://nvcr.io/v2/", "", "http://proxy:3128"),
        ("http://nvcr.io/v2/", "", "http://proxy:8080"),
        ("https://nvcr.io/v2/", "*", None),
        ("https://nvcr.io/v2/", "nvcr.io", None),
        ("https://nvcr.io/v2/", "NVCR.IO", None),
        ("https://a.nvcr.io/", "nvcr.io", None),
        ("https://notnvcr.io/", "nvcr.io", "http://proxy:3128"),
        ("https://a.nvcr.io/", ".nvcr.io", None),
        ("https://nvcr.io/", ".nvcr.io", "http://proxy:3128"),
        ("https://a.nvcr.io/", "*.nvcr.io", None),
        ("https://nvcr.io:5000/", "nvcr.io:5000", None),
        ("https://nvcr.io/", "nvcr.io:5000", "http://proxy:3128"),
        ("https://nvcr.io/", "nvcr.io:443", None),
        ("https://10.1.2.3/", "10.0.0.0/8", None),
        ("https://11.1.2.3/", "10.0.0.0/8", "http://proxy:3128"),
        ("https://nvcr.io/", "10.0.0.0/8, nvcr.io ,", None),
        ("https://[fd00::1]:5000/", "fd00::1", None),
        ("https://nvcr.io/", "bad/network", "http://proxy:3128"),
        ("http://localhost:5000/", "", None),
        ("https://127.8.9.1/", "", None),
        ("https://[::1]:5000/", "", None),
    ],
)
def test_which_proxy_serves_an_address(url: str, no_proxy: str, expected: str | None) -> None:
    assert proxy_for(url, PROXY | {"no_proxy": no_proxy}) == expected


def test_upper_case_variables_count_where_lower_case_ones_are_not_set() -> None:
    environ = {"HTTPS_PROXY": "http://upper", "HTTP_PROXY": "http://no", "http_proxy": "http://lower"}
    assert (proxy_for("https://a.test/", environ), proxy_for("http://a.test/", environ)) == (
        "http://upper",
        "http://lower",
    )


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("[::1]", True),
        ("127.0.0.1.evil.test", False),
        ("127.evil.0.1", False),
        ("localhost.evil.test", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_loopback_by_name(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
