"""Publishes one delivery to fedstream from Python: what an application in any language does (README.md, outbound).

    python publish.py nats://127.0.0.1:4222 https://remote.example/inbox 7f9c24e8-3b12-4fef-91e1-4c1d2f1a0b77 < activity.json

Prints the broker's answer as JSON: subject, id, sequence, and whether it was there before. It is stored when this
program ends with 0; with anything else it is not known to be, and running it again is harmless.
"""

import asyncio
import hashlib
import json
import sys
import uuid
from urllib.parse import urlsplit

import nats

PARTITIONS = 4  # the same in every publisher of one broker


def remote_of(inbox: str) -> str:
    """Host in lower case, and its port where that is neither 80 nor 443.

    A name in other letters is to be given in its ASCII form (`xn--..`): Python's own conversion is that of IDNA 2003, URLs have
    that of UTS 46, and a lane must not depend on which. An IPv6 address stands as it is written: its shortest form, please.
    """
    url = urlsplit(inbox)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"{inbox!r} is no URL of an inbox")
    host = url.hostname.rstrip(".")
    if not host.isascii() or "%" in host:
        raise ValueError(f"the host of {inbox!r} is not in its ASCII form (xn--..)")
    host = f"[{host}]" if ":" in host else host
    return host if url.port in (None, 80, 443) else f"{host}:{url.port}"


def token(name: str) -> str:
    """A host name as one token of a subject: `.` becomes `_`, every other byte outside [a-z0-9-] becomes =XX."""
    return "".join(
        c if c.isascii() and (c.islower() or c.isdigit() or c == "-") else "_" if c == "." else f"={ord(c):02X}"
        for c in name
    )


def partition(actor: uuid.UUID) -> int:
    return int.from_bytes(hashlib.sha256(actor.bytes).digest()[:8], "big") % PARTITIONS


def message_id(subject: str, kind: str, inbox: str, actor: uuid.UUID, activity: dict) -> str:
    """The same for the same delivery, another for another: any such id will do. This one is what fedstream's own makes, where
    the inbox is written as URLs are written out and no number of the activity has an exponent.

    Under the same id it is a repeat for ten minutes: acknowledged ("duplicate" below), and dropped. To send it once more on
    purpose, because it was given up or because a user follows, unfollows and follows again, give the activity an `id` of its
    own each time, or add `.again.1` (2, 3, ..) to this one.
    """
    canonical = json.dumps(activity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    hashed = hashlib.sha256()
    for part in (subject, kind, inbox, str(actor), canonical):
        part = part.encode()
        hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.hexdigest()


async def publish(server: str, inbox: str, actor: uuid.UUID, activity: dict) -> dict:
    subject = f"fed.outbox.{token(remote_of(inbox))}.{partition(actor)}"
    event = {"type": "DeliveryRequested", "inbox": inbox, "activity": activity, "signing_actor_id": str(actor)}
    msg_id = message_id(subject, event["type"], inbox, actor, activity)
    connection = await nats.connect(server, allow_reconnect=False, connect_timeout=5)
    try:
        # Only with the ack is it stored; a refusal is an exception. A full lane is err_code 10077 with "per subject" in its
        # description; the same code without it is a full stream.
        ack = await connection.jetstream().publish(
            subject,
            json.dumps(event, ensure_ascii=False).encode(),
            timeout=5,
            stream="FED_OUTBOX",
            headers={"Nats-Msg-Id": msg_id, "Fed-Version": "1"},
        )
    finally:
        await connection.close()
    return {"subject": subject, "id": msg_id, "seq": ack.seq, "duplicate": bool(ack.duplicate)}


def main() -> None:
    server, inbox, actor = sys.argv[1:]
    activity = json.load(sys.stdin)
    print(json.dumps(asyncio.run(publish(server, inbox, uuid.UUID(actor), activity))))


if __name__ == "__main__":
    main()
