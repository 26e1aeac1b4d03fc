"""Sends a message to a webhook: a signed POST to a checked address."""

import asyncio
import json
import time

import httpx

from shared.network.tls import make_context
from shared.notifications.address_guard import Address, find_addresses, host_of, read_url
from shared.notifications.deliveries import DeliveryClaim
from shared.notifications.webhooks import sign
from shared.settings import Settings

#: Maximum bytes of a receiver's answer that are read. Their content is ignored.
MAX_READ_BYTES = 4096


class WebhookSender:
    """Sends messages. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tls = make_context(settings.ca_bundle)

    def send(self, claimed: DeliveryClaim) -> int:
        """POST a message; return the receiver's status.

        Raises the errors of the address guard and httpx, and `TimeoutError`.
        """
        url = read_url(claimed.url)
        addresses = find_addresses(url, allow_private=self._settings.webhook_allow_private)
        message = {"type": claimed.event, "timestamp": claimed.created_at.isoformat(), "data": claimed.payload}
        body = json.dumps(message, separators=(",", ":")).encode()
        message_id, timestamp = str(claimed.delivery_id), str(int(time.time()))
        headers = {
            "Host": url.netloc.decode(),
            "Content-Type": "application/json",
            "User-Agent": "Carina-Webhooks/1",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": sign(claimed.secret, message_id, timestamp, body),
        }
        return asyncio.run(self._post(url, addresses, headers, body))

    async def _post(self, url: httpx.URL, addresses: list[Address], headers: dict[str, str], body: bytes) -> int:
        """POST to the first of these addresses that accepts a connection; return its status. Follows no redirect."""
        status = None
        timeout_s = self._settings.webhook_timeout_s
        # Use no proxy from the environment, because it would resolve the name again.
        client = httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=httpx.Timeout(timeout_s))
        try:
            async with asyncio.timeout(timeout_s), client:
                response = await self._connect(client, url, addresses, headers, body)
                status = response.status_code
                # Read the answer, so that the receiver can finish sending it.
                await _read(response)
        except (TimeoutError, httpx.HTTPError):
            if status is None:
                raise
        assert status is not None, "a request without an answer raises"
        return status

    async def _connect(
        self, client: httpx.AsyncClient, url: httpx.URL, addresses: list[Address], headers: dict[str, str], body: bytes
    ) -> httpx.Response:
        for address in addresses:
            request = client.build_request(
                "POST",
                url.copy_with(host=str(address)),
                headers=headers,
                content=body,
                extensions={"sni_hostname": host_of(url)},
            )
            try:
                return await client.send(request, stream=True)
            except httpx.ConnectError:
                if address == addresses[-1]:
                    raise
        raise AssertionError("a name that is known has an address")


async def _read(response: httpx.Response) -> None:
    read = 0
    async for chunk in response.aiter_raw():
        read += len(chunk)
        if read >= MAX_READ_BYTES:
            break
