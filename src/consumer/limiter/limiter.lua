-- A token bucket shared by all consumers, by the server's clock.
-- KEYS[1]  hash with the tokens and when they were counted
-- ARGV[1]  rate, permits a second
-- ARGV[2]  burst, most tokens kept
-- ARGV[3]  wanted
-- Returns {granted, milliseconds until more}.
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local state = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(state[1]) or burst, tonumber(state[2]) or now
-- A clock that was set back gives nothing, and takes nothing.
local elapsed = math.max(0, now - at)
tokens = math.min(burst, tokens + elapsed * rate / 1000000)
local granted = math.min(wanted, math.floor(tokens))
tokens = tokens - granted
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', string.format('%.0f', now))
local wait = 0
if granted < wanted then
  wait = math.ceil(math.max(5, (1 - tokens) * 1000 / rate))
end
return {granted, wait}
