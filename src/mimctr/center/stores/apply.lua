-- Apply one window to one partition, wholly or not at all: Redis runs a script alone, and replicates it as one unit.
-- KEYS: the watermark, then a row for each record.  ARGV: epoch, seq, then the packed records.
-- Returns what became of it, and the watermark after it (epoch, seq); see mimctr.center.stores.interface.
local function version(raw) return struct.unpack('<I8', raw) end  -- exact below 2^53

local mark = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if not mark[2] then return {'empty'} end
local epoch, seq = tonumber(ARGV[1]), tonumber(ARGV[2])
if epoch < tonumber(mark[1]) then return {'fenced', mark[1], mark[2]} end
if seq <= tonumber(mark[2]) then return {'duplicate', mark[1], mark[2]} end
if seq ~= tonumber(mark[2]) + 1 then return {'gap', mark[1], mark[2]} end
for i = 3, #ARGV do
  local held = redis.call('GETRANGE', KEYS[i - 1], 16, 23)
  if held == '' or version(held) < version(string.sub(ARGV[i], 17, 24)) then
    redis.call('SET', KEYS[i - 1], ARGV[i])
  end
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'seq', ARGV[2])
return {'applied', ARGV[1], ARGV[2]}
