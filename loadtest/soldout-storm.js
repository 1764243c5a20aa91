// A crowd that came too late: the STOCK is gone before T0; from T0 on USERS others ask REPEATS times each, without a pause. Every answer
// must be SOLD_OUT.
import { askOnce, askUntilFinal, begin, contradiction, end, newUserAsks } from './lib/ask.js';
import { connect, untilMillis } from './lib/clock.js';
import { createCoupon } from './lib/coupons.js';
import { couponId, number } from './lib/env.js';
import { userOf } from './lib/identity.js';
import { shared } from './lib/options.js';
import { summaryOf } from './lib/summary.js';

const users = number('USERS', 1000);
const stock = number('STOCK', 100);
const repeats = number('REPEATS', 50);
const connectSeconds = number('CONNECT_SECONDS', 8);

export const options = {
    ...shared,
    scenarios: {
        soldout_storm: { executor: 'per-vu-iterations', vus: users, iterations: 1, maxDuration: '30m', gracefulStop: '0s' },
    },
};

const user = userOf(__VU);

export function setup() {
    createCoupon(stock);
    for (let holder = 1; holder <= stock; holder += 1) newUserAsks(userOf(`holder-${holder}`), couponId, null);
    return { t0: Date.now() + connectSeconds * 1000 };
}

export default function soldoutStorm({ t0 }) {
    connect(user, t0, connectSeconds, (__VU - 1) / users);
    untilMillis(t0);
    begin();
    let last;
    for (let times = 1; times <= repeats; times += 1) {
        // The last time it is the answer that counts.
        last = times < repeats ? askOnce(user, couponId, t0) : askUntilFinal(user, couponId, t0);
        if (last.won) contradiction(`${last.outcome} of a coupon that was sold out`);
    }
    end(last);
}

export function handleSummary(data) {
    return summaryOf(data, { stock });
}
