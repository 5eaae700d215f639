"""Media by URL: from where nothing is ever fetched. Real sockets; only names are resolved by a table."""

import asyncio
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from gateway_remote.media import public
from site_case import PNG, SECRET, Site, get, play, refusal, site

# IANA IPv4 and IPv6 Special-Purpose Address Registries: what they do not call globally reachable. Then multicast, what is
# deprecated, and addresses that hide another one.
SPECIAL = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.0.1 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8 192.0.0.170 192.0.0.171 192.0.2.1 192.88.99.1 192.168.0.1 192.168.255.255
198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1 64:ff9b::127.0.0.1
64:ff9b::a9fe:a9fe 64:ff9b::10.0.0.1 64:ff9b:1::1 64:ff9b:1::8.8.8.8 100::1 100:0:0:1::1 2001::1 2001:0:7f00:1::
2001:0:808:808::f7f7:f7f7 2001:2::1 2001:10::1 2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe:: 2002:808:808:: 3fff::1 3fff:fff::1
4000::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 febf::1 fec0::1 ff00::1 ff02::1 ff0e::1 ffff::1
""".split()  # noqa: SIM905
PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 172.15.255.255
172.32.0.0 192.0.1.1 192.167.255.255 198.17.255.255 198.20.0.0 223.255.255.255 192.31.196.1 192.52.193.1 192.175.48.1
2000::1 2001:4860:4860::8888 2400:cb00::1 2606:4700::1111 2620:4f:8000::1 2a00:1450::1 3ffe::1 64:ff9b::8.8.8.8
::ffff:8.8.8.8
""".split()  # noqa: SIM905


@pytest.mark.parametrize("address", SPECIAL)
def test_an_address_of_special_purpose_is_not_public(address: str) -> None:
    async def test(here: Site) -> None:
        host = f"[{address}]" if ":" in address else address
        assert await refusal(f"http://{host}:{here.port}/{SECRET}", allowed=None) == "its address is not public"
        assert not here.opened

    assert not public(ipaddress.ip_address(address))
    play(test)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST.", "127.1", "127.0.1", "2130706433", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "017700000001",
        "127.0.0.1.", "①②⑦.⓪.⓪.①", "127。0。0。1", "0", "00000000177.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]",
        "[0:0:0:0:0:ffff:127.0.0.1]", "127.0.0.1%2e", "127.0.0.1%00.example.com", "[::1%25lo]", "[::1%lo]",
    ],
)  # fmt: skip
def test_this_machine_is_not_reached_under_any_of_its_spellings(host: str) -> None:
    async def test(here: Site) -> None:
        here.page(f"/{SECRET}")
        why = await refusal(f"http://{host}:{here.port}/{SECRET}", allowed=None)
        assert why in ("its address is not public", "its host is not known", "it is no http:// or https:// URL")
        assert not here.opened

    play(test)


def names(monkeypatch: pytest.MonkeyPatch, **table: list[list[str]]) -> list[str]:
    """Resolve names by a table: each lookup takes the next list of addresses, the last one for ever. Gives what is asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        known = table.get(str(host).partition(".")[0])
        if known is None:
            return real(host, port, *args, **options)
        asked.append(str(host))
        addresses = known.pop(0) if len(known) > 1 else known[0]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, f"no such name: {SECRET}")
        return [info for address in addresses for info in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_is_refused_when_one_of_its_addresses_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, mixed=[["127.0.0.1", "127.0.0.2"]], metadata=[["169.254.169.254"]], gone=[[]], six=[["::1"]])

    async def test(here: Site) -> None:
        here.page("/a.png")
        for host in ("mixed.example", "metadata.example", "six.example"):
            assert await refusal(here.url(host=host)) == "its address is not public"
        assert await refusal(here.url(host="gone.example")) == "its host is not known"
        assert not here.opened

    play(test)


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    # DNS rebinding: the first answer may be connected to, every later one leads elsewhere.
    asked = names(monkeypatch, rebound=[["127.0.0.1"], ["127.0.0.2"]])

    async def test(here: Site) -> None:
        here.page("/a.png")
        async with site("127.0.0.2", here.port) as elsewhere:
            assert (await get(here.url(host="rebound.example"))).data == PNG
            assert asked == ["rebound.example"] and here.opened == 1 and not elsewhere.opened
            assert "rebound.example" in here.heads[0]  # as the host that is asked for
            assert await refusal(here.url(host="rebound.example")) == "its address is not public"
            assert not elsewhere.opened

    play(test)


def test_redirects_are_followed_and_each_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, inside=[["127.0.0.2"]])

    async def test(here: Site) -> None:
        here.moved("/b", here.page("/there.png"))
        for status in (301, 302, 303, 307, 308):
            assert (await get(here.moved("/a", "/b", status))).data == PNG
        port, secret = here.port, f"/{SECRET}"
        for to in (
            f"http://127.0.0.2:{port}{secret}", f"//127.0.0.2:{port}{secret}", f"http://inside.example:{port}{secret}",
            "http://169.254.169.254/latest/meta-data/", f"http://[::1]:{port}{secret}", f"http://①②⑦.⓪.⓪.②:{port}{secret}",
        ):  # fmt: skip
            assert await refusal(here.moved(secret, to)) == "its address is not public"
        for to in (
            "file:///etc/passwd",
            "ftp://127.0.0.1/x",
            "gopher://127.0.0.1/x",
            "data:image/png;base64,AAAA",
            "http://[::1",
        ):
            assert await refusal(here.moved(secret, to)) == "it is no http:// or https:// URL"
        for to in (f"http://{SECRET}@127.0.0.1:{port}/there.png", f"http://me:{SECRET}@127.0.0.1:{port}/there.png"):
            assert await refusal(here.moved(secret, to)) == "it must not hold a user or password"

    play(test)


def test_more_than_three_redirects_are_too_many() -> None:
    async def test(here: Site) -> None:
        for at in range(5):
            here.moved(f"/{at}", f"/{at + 1}")
        here.page("/5")
        assert await refusal(here.url("/1")) == "it redirects more than 3 times"
        assert len(here.heads) == 4
        assert (await get(here.url("/2"))).data == PNG
        assert await refusal(here.moved("/self", "/self")) == "it redirects more than 3 times"

    play(test)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://127.0.0.1/a.png", "data:image/png;base64,AAAA", "javascript:alert(1)", "a.png", "",
        "//x/a.png",
        "http://", "http:///a.png", "https:a.png", "http://[::1/a.png", "http://127.0.0.1:99999/a.png", "http://127.0.0.1:x/a.png",
        "http://exa mple/a.png", f"\x00http://{SECRET}/",
    ],
)  # fmt: skip
def test_what_is_no_url_of_the_web_is_refused(url: str) -> None:
    assert asyncio.run(refusal(url)) in ("it is no http:// or https:// URL", "its host is not known")


def test_a_url_that_holds_a_password_is_refused() -> None:
    async def test(here: Site) -> None:
        here.page("/a.png")
        for user in (f"me:{SECRET}", SECRET, f":{SECRET}"):
            assert await refusal(here.url(host=f"{user}@127.0.0.1")) == "it must not hold a user or password"
        assert not here.opened

    play(test)


def test_a_certificate_that_is_not_trusted_is_told_as_such() -> None:
    async def whole() -> None:
        context = trustme.CA().issue_cert("127.0.0.1")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.configure_cert(tls)
        async with site(ssl=tls) as here:
            url = here.url().replace("http:", "https:")
            assert await refusal(url) == "its server's certificate is not trusted"
            assert not here.heads

    asyncio.run(whole())


def test_nothing_of_this_machine_goes_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\ndefault login me password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://me:{SECRET}@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")

    async def test(here: Site) -> None:
        here.page("/b.png")
        url = here.page("/a.png", b"", status=302, extra=f"location: /b.png\r\nset-cookie: k={SECRET}\r\n")
        assert (await get(url)).data == PNG
        for head in here.heads:
            lines = [line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line]
            assert sorted(lines) == ["accept", "accept-encoding", "host", "user-agent"] and SECRET not in head

    play(test)
