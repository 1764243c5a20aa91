-- Takes permits out of the token bucket that all consumers share. With a floor its rate follows the database: law.rs says how and why,
-- this does it over the workers of all consumers.
--
-- KEYS[1]  the bucket: hash of tokens (permits left, fractional), at (microseconds of the server's clock when that was so) and rate (when
--          adaptive: the rate then)
-- KEYS[2]  when adaptive: hash of the latest word of each worker: "at rows_per_second waiting"
-- ARGV[1]  wanted: permits asked for
-- ARGV[2]  rate: permits a second, above 0; when adaptive its ceiling, 0 = none
-- ARGV[3]  floor: 0 = the rate is fixed
-- ARGV[4]  worker: who asks, when adaptive
-- ARGV[5]  rows a second that worker writes while it commits, 0 = not known yet
-- ARGV[6]  waiting: age of the oldest record that worker drains, seconds
--
-- Returns {granted, wait, rate, measured}: permits taken, 0 to wanted; when fewer than wanted, the milliseconds until asking again
-- pays off; the rate in force and the sum measured, thousandths a second.
--
-- A missing bucket is a full one. It expires only when it has long been full again, so nothing is lost by that.

-- law.rs puts its constants before this file: CALM_SHARE, HURRIED_SHARE, CALM_WAIT, HURRIED_WAIT, FRESH, SMOOTHING.
-- Seconds after which the word of a worker is thrown away.
local FORGOTTEN = 60

local key = KEYS[1]
local wanted = tonumber(ARGV[1])
local rate = tonumber(ARGV[2])
local floor = tonumber(ARGV[3])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local bucket = redis.call('HMGET', key, 'tokens', 'at', 'rate')
local at = tonumber(bucket[2]) or now
-- The clock of a server that was set back, or of another server after a failover, may be behind: then no time has passed.
local elapsed = math.max(now - at, 0) / 1000000

local measured = 0
if floor > 0 then
  local words = KEYS[2]
  local ceiling = rate
  if tonumber(ARGV[5]) > 0 then
    redis.call('HSET', words, ARGV[4], string.format('%.0f %s %s', now, ARGV[5], ARGV[6]))
    redis.call('PEXPIRE', words, FORGOTTEN * 1000)
  end
  local waiting = 0
  local all = redis.call('HGETALL', words)
  for i = 1, #all, 2 do
    local said_at, speed, age = string.match(all[i + 1], '^(%S+) (%S+) (%S+)$')
    -- In either direction: a clock that was set back makes no word last for ever.
    local old = math.abs(now - tonumber(said_at)) / 1000000
    if old <= FRESH then
      measured = measured + tonumber(speed)
      waiting = math.max(waiting, tonumber(age))
    elseif old > FORGOTTEN then
      redis.call('HDEL', words, all[i])
    end
  end
  rate = tonumber(bucket[3])
  if measured > 0 then
    local hurry = math.min(math.max((waiting - CALM_WAIT) / (HURRIED_WAIT - CALM_WAIT), 0), 1)
    local target = (CALM_SHARE + hurry * (HURRIED_SHARE - CALM_SHARE)) * measured
    rate = rate and rate + (target - rate) * (1 - math.exp(-elapsed / SMOOTHING)) or target
  end
  local known = rate ~= nil
  rate = rate or floor
  if ceiling > 0 then rate = math.min(rate, ceiling) end
  rate = math.max(rate, floor)
  -- The floor of the start is no measurement to be smoothed with.
  if known then redis.call('HSET', key, 'rate', string.format('%.3f', rate)) end
end

-- A tenth of a second's worth, at least one.
local burst = math.max(rate * 0.1, 1)
local tokens = tonumber(bucket[1]) or burst
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

return { granted, wait, math.floor(rate * 1000), math.floor(measured * 1000) }
