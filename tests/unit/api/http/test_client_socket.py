"""A client's socket as the event loop uses it, which must never wait for one client."""

import socket

import pytest

from api.http import client_socket
from api.http.client_socket import ClientSocket


def test_the_event_loop_does_not_wait_for_a_client_after_a_streamed_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that sends a stream waits for its client; what is sent after the request is left for later."""
    monkeypatch.setattr(client_socket, "SILENCE_S", 0.1)
    accepted, client = socket.socketpair()
    with client, ClientSocket(accepted) as server:
        server.write_as_produced()
        with pytest.raises(ConnectionResetError):
            server.sendall(bytes(2**22))
        held_bytes = server.unsent_bytes
        assert held_bytes > 0
        server.end()
        server.sendall(b"refused")
        assert server.unsent_bytes == held_bytes + len(b"refused")
