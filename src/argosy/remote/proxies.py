"""Which proxy serves an address: the words of http_proxy, https_proxy and no_proxy, as curl and Go read them.

Pure. Loopback names never go through a proxy, whatever the variables say: a
proxy's loopback is not ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .messages import DEFAULT_PORTS, split_url

if TYPE_CHECKING:
    from collections.abc import Mapping


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy's URL for *url*, or None to go directly. Lower-case variables win over upper-case ones."""
    parts = split_url(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    proxy = _variable(environ, f"{parts.scheme}_proxy")
    if not proxy or is_loopback(host) or _is_exempt(host, port, _variable(environ, "no_proxy")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_loopback(host: str) -> bool:
    """localhost, 127.0.0.0/8 and ::1, by name alone: nothing is resolved."""
    host = host.strip("[]").lower()
    if host in ("localhost", "::1"):
        return True
    octets = host.split(".")
    return len(octets) == 4 and octets[0] == "127" and all(octet.isdecimal() and len(octet) <= 3 for octet in octets)


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    return any(_covers(entry.strip().lower(), host.lower(), port) for entry in no_proxy.split(",") if entry.strip())


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return is_in_network(host, entry)
    name, own_port = _split_port(entry)
    if own_port is not None and own_port != port:
        return False
    if name.startswith("*."):
        name = name[1:]
    return host == name or host.endswith(name if name.startswith(".") else f".{name}")


def _split_port(entry: str) -> tuple[str, int | None]:
    """«name», «name:443», «::1», «[::1]:443»."""
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        port = rest.removeprefix(":")
    elif entry.count(":") == 1:
        name, _, port = entry.partition(":")
    else:
        name, port = entry, ""
    return name, int(port) if port.isdecimal() else None


def is_in_network(host: str, network: str) -> bool:
    """Whether an address lies in a network; names lie in none."""
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:  # a name, or an entry that is no network
        return False
