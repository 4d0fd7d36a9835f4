"""The Lua scripts: compare what was read, set what was computed, append what happened. No more.

Each returns 1 when it wrote and 0 when somebody else was first; the caller reads again and
computes again. All keys of a call carry one tag, so a script touches one slot of a cluster.
"""

_COMPARE_AND_SET = """
local function same(key, digest)
  local value = redis.call('GET', key)
  return redis.sha1hex(value or '') == digest
end
if not same(KEYS[1], ARGV[1]) or not same(KEYS[2], ARGV[2]) then return 0 end
local function put(key, value)
  if value == '' then redis.call('DEL', key) else redis.call('SET', key, value) end
end
"""

APPEND_EVENTS = (
    _COMPARE_AND_SET
    + """
if redis.call('EXISTS', KEYS[7]) == 1 then return 0 end
local n = tonumber(ARGV[6])
for day = 3, 5 do
  for i = 0, n - 1 do
    if redis.call('HEXISTS', KEYS[day], ARGV[7 + 3 * i]) == 1 then return 0 end
  end
end
put(KEYS[1], ARGV[3])
put(KEYS[2], ARGV[4])
for i = 0, n - 1 do
  redis.call('HSET', KEYS[3], ARGV[7 + 3 * i], ARGV[8 + 3 * i])
  redis.call('XADD', KEYS[6], '*', 'e', ARGV[9 + 3 * i])
end
redis.call('EXPIRE', KEYS[3], ARGV[5])
return 1
"""
)
"""Keys: hot, rest, the event ids of three days (the first is written), stream, link
(a visitor who has become a user is not written to). Arguments: SHA-1 of
hot and rest as read, the new hot and rest, TTL of the ids in seconds, n, then n times: digest of
the event id, digest of the body, the event."""

APPLY_IMPORT = (
    _COMPARE_AND_SET
    + """
if redis.call('EXISTS', KEYS[4]) == 1 then return 0 end
if redis.call('SADD', KEYS[3], ARGV[6]) == 0 then return 1 end
put(KEYS[1], ARGV[3])
put(KEYS[2], ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[5])
return 1
"""
)
"""Keys: hot, rest, the import's marker, link. Arguments: SHA-1 of hot and rest as read, the new hot
and rest, TTL of the marker in seconds, the person. Adding twice has no effect."""

ALLOT_ROWS = """
local rows = {}
local n = tonumber(redis.call('GET', KEYS[4]) or 0)
for i, id in ipairs(ARGV) do
  local row = redis.call('HGET', KEYS[1], id)
  if not row then
    row = n
    n = n + 1
    redis.call('HSET', KEYS[1], id, row)
    redis.call('RPUSH', KEYS[2], cjson.encode({row = row, item_id = id}))
    redis.call('INCR', KEYS[3])
  end
  rows[i] = tonumber(row)
end
redis.call('SET', KEYS[4], n)
return rows
"""
"""Keys: ids, log, sequence, next row of the catalogue. Arguments: item ids. Gives each id its row,
a new one at the end where it has none, and notes new ones in the log."""
