"""Signatures and pauses of messages to webhooks."""

from shared.notifications.deliveries import MAX_PAUSE_S, pause_s_after
from shared.notifications.webhooks import sign


def test_a_signature_is_that_of_the_standard() -> None:
    """The example of the Standard Webhooks specification's own libraries."""
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_pauses_double_and_fill_a_day() -> None:
    day_s = 24 * 3600
    pauses = []
    while (pause := pause_s_after(len(pauses) + 1, backoff_s=2, retry_s=day_s)) is not None:
        pauses.append(pause)
    assert pauses[:4] == [2, 4, 8, 16]
    assert max(pauses) == MAX_PAUSE_S
    assert day_s - MAX_PAUSE_S < sum(pauses) <= day_s


def test_without_a_backoff_a_message_is_still_given_up() -> None:
    assert pause_s_after(100, backoff_s=0, retry_s=3600) is None
