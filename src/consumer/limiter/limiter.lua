-- Takes permits out of the token bucket that all consumers share.
--
-- KEYS[1]  the bucket: hash of tokens (permits left, fractional) and at (microseconds of the server's clock when that was so)
-- ARGV[1]  rate: permits a second, above 0
-- ARGV[2]  burst: most permits the bucket holds, at least 1
-- ARGV[3]  wanted: permits asked for
--
-- Returns {granted, wait}: permits taken, 0 to wanted; when fewer than wanted, the milliseconds until asking again pays off.
--
-- A missing bucket is a full one. It expires only when it has long been full again, so nothing is lost by that.

local key = KEYS[1]
local rate = tonumber(ARGV[1])
local burst = tonumber(ARGV[2])
local wanted = tonumber(ARGV[3])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local bucket = redis.call('HMGET', key, 'tokens', 'at')
local tokens = tonumber(bucket[1]) or burst
local at = tonumber(bucket[2]) or now

-- The clock of a server that was set back, or of another server after a failover, may be behind: then no time has passed.
local elapsed = math.max(now - at, 0) / 1000000
tokens = math.min(math.max(tokens, 0) + elapsed * rate, burst)

local granted = math.min(wanted, math.floor(tokens))
tokens = tokens - granted

local wait = 0
if granted < wanted then
  -- Half a bucket at a time: fewer would be many small batches, more would spill while the caller is on its way back.
  local target = math.max(math.min(wanted - granted, math.floor(burst / 2)), 1)
  wait = math.max(math.ceil((target - tokens) / rate * 1000), 1)
end

-- In full digits: a number as a string has 14 of them at most in Lua, the time needs 16.
redis.call('HSET', key, 'tokens', string.format('%.6f', tokens), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', key, math.ceil(burst / rate * 1000) + 60000)

return { granted, wait }
