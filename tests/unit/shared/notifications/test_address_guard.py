"""Where webhooks may point."""

import ipaddress

import pytest

from shared.notifications.address_guard import InvalidWebhookUrl, host_of, is_allowed, read_url

PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::808:808", "::ffff:8.8.8.8"]
PRIVATE = [
    *("127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "198.18.0.1", "192.0.2.1"),
    *("240.0.0.1", "255.255.255.255", "0.1.2.3"),
    *("::1", "fc00::1", "fd12::1", "fec0::1", "2001:db8::1", "100::1", "::127.0.0.1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::1"),
]
NEVER = [
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"),
    *("fe80::1", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1", "239.255.255.250", "ff02::1"),
    *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::ffff:0.0.0.0", "::ffff:224.0.0.1"),
]


@pytest.mark.parametrize("text", PUBLIC + PRIVATE + NEVER)
def test_only_public_addresses_are_allowed_and_a_clouds_metadata_never(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert is_allowed(address, allow_private=False) == (text in PUBLIC)
    assert is_allowed(address, allow_private=True) == (text not in NEVER)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "ward.example",
            "//ward.example/",
            "ftp://ward.example/",
            "file:///etc/passwd",
            "gopher://x/",
            "https://",
        ),
        *("https://:443/", "https://user@ward.example/", "https://user:word@ward.example/", "https://ward.example:x/"),
        *(
            "javascript:alert(1)",
            "https://ward.example/" + "x" * 2000,
            "http://[::1",
            "https://ward.example/\x00",
            "http://\ud800/",
        ),
    ],
)
def test_a_url_that_no_message_could_go_to_is_refused(url: str) -> None:
    with pytest.raises(InvalidWebhookUrl):
        read_url(url)


def test_a_host_is_named_as_it_is_resolved() -> None:
    assert host_of(read_url("https://Ward.EXAMPLE.:8443/hook?x=1")) == "ward.example"
    assert host_of(read_url("https://münchen.example/")) == "xn--mnchen-3ya.example"
    assert host_of(read_url("http://[::1]:80/")) == "::1"
    assert host_of(read_url("http://xn--xn--_/")) == "xn--xn--_"
