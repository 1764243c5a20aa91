-- Lets users of coupons through until there are about as many as each has stock.
--
-- KEYS       for each coupon, the set of users let through; never expires: a coupon that is over is forgotten by the service
-- ARGV       for each coupon, in the same order: its stock, the coupons the caller knows to be held (counts when the set is smaller:
--            Redis came back empty), how many users follow, and their ids in the order they asked
--
-- Returns one number a user, in the order of ARGV: 0 pass (the user was added), 1 seen (was in the set before), 2 full.
--
-- Running it twice with the same arguments adds nobody twice: whom the first run let through, the second has seen.

local verdicts = {}
local at = 1

for _, key in ipairs(KEYS) do
  local total = tonumber(ARGV[at])
  local issued = tonumber(ARGV[at + 1])
  local last = at + 2 + tonumber(ARGV[at + 2])
  local taken = redis.call('SCARD', key)
  for i = at + 3, last do
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
    verdicts[#verdicts + 1] = verdict
  end
  at = last + 1
end

return verdicts
