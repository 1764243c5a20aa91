-- Admits users of one coupon, in the order given. Runs twice harmlessly: who passed the first time is "seen" the second.
-- KEYS[1]  the set of users let through; no TTL, or a set that runs out would let everybody in again
-- ARGV[1]  total: the stock by the caller's roster
-- ARGV[2]  issued: coupons held by the caller's roster; after a flush they count although the set is empty
-- ARGV[3..] the users
-- Returns one number a user: 1 pass, 2 seen, 0 full.
local total, issued = tonumber(ARGV[1]), tonumber(ARGV[2])
local members = redis.call('SCARD', KEYS[1])
local verdicts = {}
for i = 3, #ARGV do
  if redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 1 then
    verdicts[i - 2] = 2
  elseif math.max(members, issued) >= total then
    verdicts[i - 2] = 0
  else
    redis.call('SADD', KEYS[1], ARGV[i])
    members = members + 1
    verdicts[i - 2] = 1
  end
end
return verdicts
