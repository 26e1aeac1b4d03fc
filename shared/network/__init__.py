"""Addresses, URLs, TLS and proxies, as every client and server of Carina uses them."""
