"""CloudEvents 1.0 in its JSON form: the envelope is opened, ``data`` is an event of ours.

What ``data`` leaves out is taken from the envelope: ``event_id`` from ``source`` and ``id``, which
together name an event, ``timestamp`` from ``time``, ``type`` from the last part of ``type``.
"""

import base64
import binascii
from typing import Any

import orjson

from feature_store.adapters.translation import AdapterError, derived_id

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
REQUIRED = ("id", "source", "type")


def unwrap(envelope: Any) -> Any:
    """Return the event of ours inside an envelope, not yet checked.

    Raises
    ------
    AdapterError
        If it is not a CloudEvent of version 1.0 with JSON data.
    """
    if not isinstance(envelope, dict):
        raise AdapterError("#", "must be a CloudEvent")
    if envelope.get("specversion") != "1.0":
        raise AdapterError("#/specversion", "must be 1.0")
    for name in REQUIRED:
        if not isinstance(envelope.get(name), str) or not envelope[name]:
            raise AdapterError(f"#/{name}", "must be a text that is not empty")
    data = envelope.get("data")
    if "data_base64" in envelope:
        try:
            data = orjson.loads(base64.b64decode(envelope["data_base64"], validate=True))
        except (binascii.Error, TypeError, ValueError) as error:
            raise AdapterError("#/data_base64", "is not JSON in base64") from error
    if not isinstance(data, dict):
        raise AdapterError("#/data", "must be an event as /v1/events takes it")
    whole = {
        "event_id": derived_id("cloudevent", envelope["source"], envelope["id"]),
        "type": envelope["type"].rpartition(".")[2],
        **data,
    }
    if "timestamp" not in whole and "time" in envelope:
        whole["timestamp"] = envelope["time"]
    return whole
