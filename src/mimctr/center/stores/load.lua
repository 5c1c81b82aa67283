-- Load a partition's base, in steps that only the newest loader gets through: another that began later has the token.
-- KEYS: the watermark, then rows.  ARGV: what to do, the loader's token, then packed records, or epoch and seq.
-- Returns 1, or 0 where another loader began meanwhile.
local what, token = ARGV[1], ARGV[2]
if what == 'begin' then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'load', token)
  return 1
end
if redis.call('HGET', KEYS[1], 'load') ~= token then return 0 end
if what == 'write' then
  for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1]) end
elseif what == 'remove' then
  for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
elseif what == 'finish' then
  redis.call('HDEL', KEYS[1], 'load')
  redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'seq', ARGV[4])
end
return 1
