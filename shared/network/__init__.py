"""Addresses, URLs, TLS and proxies for all clients and servers of Carina."""
