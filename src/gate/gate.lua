-- Lets users of one coupon through until there are about as many as it has stock.
--
-- KEYS[1]    the set of users let through; never expires: a coupon that is over is forgotten by the service
-- ARGV[1]    total: the stock
-- ARGV[2]    issued: coupons the caller knows to be held; counts when the set is smaller (Redis came back empty)
-- ARGV[3..]  user ids, in the order they asked
--
-- Returns one number a user: 0 pass (the user was added), 1 seen (was in the set before), 2 full.
--
-- Running it twice with the same arguments adds nobody twice: whom the first run let through, the second has seen.

local key = KEYS[1]
local total = tonumber(ARGV[1])
local taken = redis.call('SCARD', key)
local issued = tonumber(ARGV[2])
local verdicts = {}

for i = 3, #ARGV do
  local user = ARGV[i]
  local verdict
  if redis.call('SISMEMBER', key, user) == 1 then
    verdict = 1
  elseif math.max(taken, issued) >= total then
    verdict = 2
  else
    redis.call('SADD', key, user)
    taken = taken + 1
    verdict = 0
  end
  verdicts[i - 2] = verdict
end

return verdicts
