"""The Lua scripts: compare what was read, set what was computed, append what happened. No more.

Each returns 1 when it wrote and 0 when somebody else was first; the caller reads again and
computes again. All keys of a call carry one tag, so a script touches one slot of a cluster.
"""

_COMPARE_AND_SET = """
local m = tonumber(ARGV[1])
for i = 1, m do
  if redis.sha1hex(redis.call('GET', KEYS[i]) or '') ~= ARGV[1 + i] then return 0 end
end
local function put()
  for i = 1, m do
    local value = ARGV[1 + m + i]
    if value == '' then redis.call('DEL', KEYS[i]) else redis.call('SET', KEYS[i], value) end
  end
end
local at = 1 + 2 * m
"""
"""The first m keys are values. The first arguments are m, the SHA-1 of each as it was read, and the
new ones, of which an empty one deletes. What else a script needs comes after them."""

_NOT_FORGOTTEN = """
local function forgotten(key, first, n)
  if n == 0 then return redis.call('EXISTS', key) == 1 and '?' or '' end
  local found = redis.call('HMGET', key, unpack(ARGV, first, first + n - 1))
  for i = 1, n do found[i] = found[i] or '' end
  return table.concat(found, ',')
end
local k = m + 1
local fields = tonumber(ARGV[at + 1])
if forgotten(KEYS[k], at + 2, fields) ~= ARGV[at + 2 + fields] then return 0 end
at = at + 2 + fields
"""
"""The key after the values is what is forgotten of the shard's people. Arguments: by how many
digests the person may be known there, these, and what they held when it was read. Whoever knows no
salt yet has none, and must read again once somebody is forgotten."""

_STILL_JOINED = """
local function has_left(journal, visitor)
  return visitor ~= '' and not tonumber(redis.call('HGET', journal, visitor) or '')
end
"""
"""Whether a visitor, '' for none, is not the user any more whose journal that is: an erasure of the
user ends what the link of the visitor, which is on another shard, still says."""

APPEND_EVENTS = (
    _COMPARE_AND_SET
    + _NOT_FORGOTTEN
    + _STILL_JOINED
    + """
if has_left(KEYS[k + 7], ARGV[at + 1]) then return 0 end
at = at + 1
if redis.call('EXISTS', KEYS[k + 5]) == 1 then return 0 end
if redis.sha1hex(redis.call('GET', KEYS[k + 6]) or '') ~= ARGV[at + 1] then return 0 end
local n = tonumber(ARGV[at + 4])
for day = k + 1, k + 3 do
  for i = 1, n do
    if redis.call('HEXISTS', KEYS[day], ARGV[at + 2 + 3 * i]) == 1 then return 0 end
  end
end
put()
for i = 1, n do
  redis.call('HSET', KEYS[k + 1], ARGV[at + 2 + 3 * i], ARGV[at + 3 + 3 * i])
  redis.call('XADD', KEYS[k + 4], '*', 'e', ARGV[at + 4 + 3 * i])
end
if ARGV[at + 3] ~= '' then
  local ahead = redis.call('HGET', KEYS[k + 1], 'ahead')
  if not ahead or tonumber(ahead) < tonumber(ARGV[at + 3]) then
    redis.call('HSET', KEYS[k + 1], 'ahead', ARGV[at + 3])
  end
end
redis.call('EXPIRE', KEYS[k + 1], ARGV[at + 2])
return 1
"""
)
"""Keys after what is forgotten: the event ids of three days (the first is written), stream, link
(a visitor who has become a user is not written to), preferences, journal. Arguments: the visitor
who has become this user and did it ('' if nobody has), SHA-1 of the preferences as read, TTL of the
ids in seconds, the newest time in milliseconds if it lies in the future, n, then n times: digest of
the event id, digest of the body, the event."""

APPLY_IMPORT = (
    _COMPARE_AND_SET
    + _NOT_FORGOTTEN
    + _STILL_JOINED
    + """
if has_left(KEYS[k + 3], ARGV[at + 3]) then return 0 end
if redis.call('EXISTS', KEYS[k + 2]) == 1 then return 0 end
if redis.call('SADD', KEYS[k + 1], ARGV[at + 2]) == 0 then return 1 end
put()
redis.call('EXPIRE', KEYS[k + 1], ARGV[at + 1])
return 1
"""
)
"""Keys after what is forgotten: the import's marker, link, journal. Arguments: TTL of the marker in
seconds, the person, and the same again if it is a visitor who has become this user, else ''. Adding
twice has no effect."""

PUT_DOCUMENT = (
    _COMPARE_AND_SET
    + _NOT_FORGOTTEN
    + _STILL_JOINED
    + """
if has_left(KEYS[k + 6], ARGV[at + 4]) then return 0 end
local link = redis.call('GET', KEYS[k + 1])
if link then return 2 end
if ARGV[at + 3] ~= '' then
  for before_ms, erased_ms in string.gmatch(ARGV[at], '(%d+) (%d+)') do
    local gone_ms = ARGV[at + 2] == '' and before_ms or erased_ms
    if tonumber(gone_ms) >= tonumber(ARGV[at + 3]) then return 3 end
  end
end
put()
if redis.call('EXISTS', KEYS[1], KEYS[k + 4], KEYS[k + 5]) == 0 then
  redis.call('SREM', KEYS[k + 2], ARGV[at + 1])
else
  redis.call('SADD', KEYS[k + 2], ARGV[at + 1])
end
if ARGV[at + 2] ~= '' then redis.call('XADD', KEYS[k + 3], '*', 'e', ARGV[at + 2]) end
return 1
"""
)
"""One value, the document. Keys after what is forgotten: link, the shard's index of people, its
stream of their changes, the person's two other documents, journal. Arguments: the person, the
change ('' for what is computed), when it began to be made, in milliseconds ('' if it does not
matter), and the visitor who has become this user and changes it ('' if nobody has). Gives 2 for a
visitor who has become a user, 3 for somebody who was erased since then, or of whom something was
forgotten if it is computed."""

FORGET_PERSON = (
    _COMPARE_AND_SET
    + _NOT_FORGOTTEN
    + """
local days = tonumber(ARGV[at + 1])
local ids = 0
for day = k + 1, k + days do ids = ids + redis.call('HLEN', KEYS[day]) end
if ids ~= tonumber(ARGV[at + 2]) then return 0 end
local journal = KEYS[k + days + 1]
local visitors = tonumber(ARGV[at + 3])
if redis.call('HLEN', journal) ~= visitors then return 0 end
for i = 1, visitors do
  if redis.call('HEXISTS', journal, ARGV[at + 3 + i]) == 0 then return 0 end
end
at = at + 3 + visitors
put()
for day = k + 1, k + days do redis.call('DEL', KEYS[day]) end
if ARGV[at + 5] == '1' then
  for i = 1, visitors do redis.call('HSET', journal, ARGV[at - visitors + i], 'x') end
  for i = k + days + 6, #KEYS do redis.call('DEL', KEYS[i]) end
end
redis.call('HSET', KEYS[k], ARGV[at + 1], ARGV[at + 2])
if redis.call('EXISTS', KEYS[k + days + 4], KEYS[k + days + 5]) == 0 then
  redis.call('SREM', KEYS[k + days + 2], ARGV[at + 4])
end
redis.call('XADD', KEYS[k + days + 3], '*', 'e', ARGV[at + 3])
return 1
"""
)
"""Keys after what is forgotten: the event ids of some days, the journal, the shard's index of
people and its stream of their changes, profile, preferences, and what else an erasure deletes.
Arguments: how many days, how many ids these have, how many visitors the journal has, these, then
the digest, the cut, the change that says so, the person, and 1 for an erasure, 0 for a reset of the
taste. An erasure leaves the visitors in the journal, marked as gone, until each of them is."""

SEAL_VISITOR = (
    _COMPARE_AND_SET
    + _NOT_FORGOTTEN
    + """
put()
redis.call('XADD', KEYS[k + 1], '*', 'e', ARGV[at + 1])
return 1
"""
)
"""One value, the link. Keys after what is forgotten: the stream. Arguments: the merge."""

LEAVE_JOURNAL = """
for i = 1, #ARGV do
  if redis.call('HGET', KEYS[1], ARGV[i]) == 'x' then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return 1
"""
"""Keys: the journal. Arguments: visitors who are gone with an erasure."""

ABSORB_VISITOR = (
    _COMPARE_AND_SET
    + _NOT_FORGOTTEN
    + """
local journal = KEYS[k + 1]
local known = redis.call('HGET', journal, ARGV[at + 1])
if known and tonumber(known) then return 1 end
put()
local here = at + 6
for day = k + 2, k + 4 do
  local n = tonumber(ARGV[here])
  for i = 1, n do
    local field, value = ARGV[here + 2 * i - 1], ARGV[here + 2 * i]
    local ahead = field == 'ahead' and redis.call('HGET', KEYS[day], field)
    if not ahead or tonumber(ahead) < tonumber(value) then
      redis.call('HSET', KEYS[day], field, value)
    end
  end
  if n > 0 then redis.call('EXPIRE', KEYS[day], ARGV[at + 3]) end
  here = here + 1 + 2 * n
end
if ARGV[at + 5] ~= '' then
  redis.call('SADD', KEYS[k + 5], ARGV[at + 4])
  redis.call('XADD', KEYS[k + 6], '*', 'e', ARGV[at + 5])
end
redis.call('HSET', journal, ARGV[at + 1], ARGV[at + 2])
return 1
"""
)
"""Keys after what is forgotten: the user's journal, the event ids of three days, the shard's index
of people and its stream of their changes. Arguments: the visitor, when sealed, TTL of the ids in
seconds, the user, the change of preferences ('' for none), and for each day n, then n times digest
of the id and digest of the body. Absorbing twice has no effect."""

ALLOT_ROWS = """
local rows, new = {}, {}
local n = tonumber(redis.call('GET', KEYS[4]) or 0)
local first = n
for i = 2, #ARGV do
  local id = ARGV[i]
  local row = redis.call('HGET', KEYS[1], id)
  if not row then
    row = n
    n = n + 1
    redis.call('HSET', KEYS[1], id, row)
    if ARGV[1] == '1' then
      new[#new + 1] = id
    else
      redis.call('RPUSH', KEYS[2], cjson.encode({row = row, item_id = id}))
      redis.call('INCR', KEYS[3])
    end
  end
  rows[i - 1] = tonumber(row)
end
if #new > 0 then
  redis.call('RPUSH', KEYS[2], cjson.encode({row = first, item_ids = new}))
  redis.call('INCR', KEYS[3])
end
redis.call('SET', KEYS[4], n)
return rows
"""
"""Keys: ids, log, sequence, next row of the catalogue. Arguments: 1 for one entry of the log, 0 for
an entry each, then item ids. Gives each id its row, a new one at the end where it has none, and
notes new ones in the log."""

CHANGE_ITEMS = """
if ARGV[1] ~= '' and (redis.call('GET', KEYS[3]) or '0') ~= ARGV[1] then return 0 end
local n = tonumber(redis.call('GET', KEYS[4]) or 0)
for i = 2, #ARGV, 2 do
  local row = redis.call('HGET', KEYS[1], ARGV[i])
  if not row then
    row = n
    n = n + 1
    redis.call('HSET', KEYS[1], ARGV[i], row)
  end
  redis.call('RPUSH', KEYS[2], '{"row":' .. row .. ARGV[i + 1])
end
redis.call('INCRBY', KEYS[3], (#ARGV - 1) / 2)
redis.call('SET', KEYS[4], n)
return 1
"""
"""Keys: as above. Arguments: the sequence that must still be the newest, or nothing, then for each
change the item's id and the entry of the log without its row. All of them or none."""
