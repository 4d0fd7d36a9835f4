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

APPEND_EVENTS = (
    _COMPARE_AND_SET
    + """
if redis.call('EXISTS', KEYS[m + 5]) == 1 then return 0 end
local n = tonumber(ARGV[at + 2])
for day = m + 1, m + 3 do
  for i = 1, n do
    if redis.call('HEXISTS', KEYS[day], ARGV[at + 3 * i]) == 1 then return 0 end
  end
end
put()
for i = 1, n do
  redis.call('HSET', KEYS[m + 1], ARGV[at + 3 * i], ARGV[at + 3 * i + 1])
  redis.call('XADD', KEYS[m + 4], '*', 'e', ARGV[at + 3 * i + 2])
end
redis.call('EXPIRE', KEYS[m + 1], ARGV[at + 1])
return 1
"""
)
"""Keys after the values: the event ids of three days (the first is written), stream, link
(a visitor who has become a user is not written to). Arguments after the values: TTL of the ids in
seconds, n, then n times: digest of the event id, digest of the body, the event."""

APPLY_IMPORT = (
    _COMPARE_AND_SET
    + """
if redis.call('EXISTS', KEYS[m + 2]) == 1 then return 0 end
if redis.call('SADD', KEYS[m + 1], ARGV[at + 2]) == 0 then return 1 end
put()
redis.call('EXPIRE', KEYS[m + 1], ARGV[at + 1])
return 1
"""
)
"""Keys after the values: the import's marker, link. Arguments after the values: TTL of the marker
in seconds, the person. Adding twice has no effect."""

ABSORB_VISITOR = (
    _COMPARE_AND_SET
    + """
local journal = KEYS[m + 1]
if redis.call('HEXISTS', journal, ARGV[at + 1]) == 1 then return 1 end
put()
local here = at + 6
for day = m + 2, m + 4 do
  local n = tonumber(ARGV[here])
  for i = 1, n do
    redis.call('HSET', KEYS[day], ARGV[here + 2 * i - 1], ARGV[here + 2 * i])
  end
  if n > 0 then redis.call('EXPIRE', KEYS[day], ARGV[at + 3]) end
  here = here + 1 + 2 * n
end
if ARGV[at + 5] ~= '' then
  redis.call('SADD', KEYS[m + 5], ARGV[at + 4])
  redis.call('XADD', KEYS[m + 6], '*', 'e', ARGV[at + 5])
end
redis.call('HSET', journal, ARGV[at + 1], ARGV[at + 2])
return 1
"""
)
"""Keys after the values: the user's journal, the event ids of three days, the shard's index of
people and its stream of their changes. Arguments after the values: the visitor, when sealed, TTL of
the ids in seconds, the user, the change of preferences ('' for none), and for each day n, then n
times digest of the id and digest of the body. Absorbing twice has no effect."""

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
