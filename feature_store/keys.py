"""Every Redis key: what it holds, its type, how long it lives and who writes it.

=============================  ======  ==========  =============================================
key                            type    lives       holds (written by)
=============================  ======  ==========  =============================================
``h:{sNN}:PERSON``             string  for ever    packed hot state (``append_events``, imports)
``r:{sNN}:PERSON``             string  for ever    packed rest of the state (the same)
``p:{sNN}:PERSON``             string  for ever    preferences as JSON (preferences)
``d:{sNN}:DAY:PERSON``         hash    3 days      digest of event id → digest of body
``i:{sNN}:IMPORT``             set     7 days      persons to whom an import was added already
``e:{sNN}``                    stream  archived    accepted events, as JSON
``{cat}:ids``                  hash    for ever    item id → catalogue row: the authority
``{cat}:log``                  list    trimmed     changes of the catalogue since the file
``{cat}:start``                string  for ever    how many log entries were trimmed
``{cat}:sequence``             string  for ever    how many log entries there have ever been
``{keys}:records``             hash    for ever    API key id → record as JSON
``{keys}:version``             string  for ever    changes with every change of a key
``{archive}:leader``           string  8 s         name of the process that archives
=============================  ======  ==========  =============================================

PERSON is ``u:<user id>`` or ``a:<anonymous id>`` (``schema.person_of``). Each person belongs to one
of 64 fixed shards; everything of one person carries the shard's tag, so that one script touches one
slot of a cluster. The tag stands before the id: braces inside an id mean nothing.
"""

import zlib
from functools import lru_cache

N_SHARDS = 64

CATALOGUE_IDS = "{cat}:ids"
CATALOGUE_LOG = "{cat}:log"
CATALOGUE_START = "{cat}:start"
CATALOGUE_SEQUENCE = "{cat}:sequence"
KEY_RECORDS = "{keys}:records"
KEY_VERSION = "{keys}:version"
ARCHIVER = "{archive}:leader"

DEDUPLICATION_TTL_S = 3 * 86_400
IMPORT_MARKER_TTL_S = 7 * 86_400


@lru_cache(maxsize=65_536)
def shard_of(person: str) -> str:
    """Return the tag of a person's shard, such as ``{s07}``."""
    return f"{{s{zlib.crc32(person.encode('utf-8', 'surrogatepass')) % N_SHARDS:02d}}}"


def shards() -> list[str]:
    """Return the tags of all shards."""
    return [f"{{s{number:02d}}}" for number in range(N_SHARDS)]


def hot(person: str) -> str:
    """Key of the packed state that pages read."""
    return f"h:{shard_of(person)}:{person}"


def rest(person: str) -> str:
    """Key of the packed state that only writes read."""
    return f"r:{shard_of(person)}:{person}"


def preferences(person: str) -> str:
    """Key of what a person decided."""
    return f"p:{shard_of(person)}:{person}"


def deduplication(person: str, day: int) -> str:
    """Key of the event ids that arrived on a day (days since 1970)."""
    return f"d:{shard_of(person)}:{day}:{person}"


def import_marker(shard: str, import_id: str) -> str:
    """Key of the persons of a shard to whom an import was added."""
    return f"i:{shard}:{import_id}"


def events(shard: str) -> str:
    """Key of a shard's stream of accepted events."""
    return f"e:{shard}"
