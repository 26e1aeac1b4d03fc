"""Hosts, URLs and addresses as they are written and as they are used."""

import pytest

from shared.network.addresses import (
    bare_host,
    check_public_url,
    is_authority,
    is_prefix,
    join_host_port,
    plain_address,
    reachable_host,
)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", ""),
        ("https://ward.example", "https://ward.example"),
        ("HTTPS://Ward.Example:443/", "https://ward.example"),
        ("http://ward.example:8080/carina/", "http://ward.example:8080/carina"),
        ("https://ward/a/b", "https://ward/a/b"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://[2001:db8::1]/x", "http://[2001:db8::1]/x"),
    ],
)
def test_a_public_url_is_kept_in_one_form(text: str, url: str) -> None:
    assert check_public_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "ward.example",
        "/carina",
        "//ward.example",
        "ftp://ward.example",
        "javascript:alert(1)",
        "https://",
        "https:///carina",
        "https://user:secret@ward.example",
        "https://ward.example?x=1",
        "https://ward.example/#top",
        "https://ward.example/?",
        "https://ward.example:0",
        "https://ward.example:99999",
        "https://ward.example:x",
        "https://[::1",
        "https://[::1]x",
        "https://[::g]",
        "https://::1",
        "https://ward.example/a b",
        "https://ward.example/a//b",
        "https://ward.example/../x",
        "https://ward.example/\r\nX: y",
        'https://ward.example/"x',
        "https://wärd.example",
        "https://ward.example\\@evil.example",
    ],
)
def test_what_is_no_public_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="It must be an absolute http"):
        check_public_url(text)


def test_prefixes_and_authorities() -> None:
    assert all(map(is_prefix, ["", "/a", "/a/b", "/a-b_c.d~e", "/..a"]))
    hostile = ["/", "a", "//evil", "/a/", "/a//b", "/a/../b", "/.", "/a'b", '/a"b', "/<x>", "/a\r\nb", "/a\n", "/%2f"]
    assert not any(map(is_prefix, hostile))
    assert all(map(is_authority, ["a", "a:1", "a.b:65535", "my_api", "127.0.0.1:80", "[::1]", "[::1]:80"]))
    hostile = [
        "",
        ":1",
        "a:",
        "a:b",
        "a:1:2",
        "::1",
        "[::1",
        "[::1]x",
        "[a]",
        "a@b",
        "a/b",
        "a:1@b",
        "a\r\nb",
        "a b",
        "<",
    ]
    assert not any(map(is_authority, hostile))


def test_ipv6_stands_in_brackets_beside_a_port_alone() -> None:
    assert [join_host_port(host, 80) for host in ("::1", "[::1]", "::", "127.0.0.1", "ward")] == [
        "[::1]:80",
        "[::1]:80",
        "[::]:80",
        "127.0.0.1:80",
        "ward:80",
    ]
    assert [bare_host(host) for host in ("[::1]", "::1", "ward")] == ["::1", "::1", "ward"]
    assert [reachable_host(host) for host in ("::", "[::]", "0.0.0.0", "::1", "ward")] == [
        "::1",
        "::1",
        "127.0.0.1",
        "::1",
        "ward",
    ]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:5555", "203.0.113.9"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("unknown", None),
        ("_hidden", None),
        ("<script>", None),
        ("", None),
    ],
)
def test_an_address_is_told_as_such(text: str, address: str | None) -> None:
    assert plain_address(text) == address
