// Users who hold the coupon press the button again and again: each has it before T0, and asks REPEATS times more from T0 on, without a
// pause. Every answer must be the one they already have.
import { askOnce, askUntilFinal, contradiction, newUserAsks } from './lib/ask.js';
import { connect, untilMillis } from './lib/clock.js';
import { createCoupon } from './lib/coupons.js';
import { couponId, number } from './lib/env.js';
import { userOf } from './lib/identity.js';
import { shared } from './lib/options.js';
import { summaryOf } from './lib/summary.js';

const users = number('USERS', 1000);
const stock = number('STOCK', users);
const repeats = number('REPEATS', 50);
const connectSeconds = number('CONNECT_SECONDS', 8);

export const options = {
    ...shared,
    scenarios: {
        repeat_storm: { executor: 'per-vu-iterations', vus: users, iterations: 1, maxDuration: '30m', gracefulStop: '0s' },
    },
};

const user = userOf(__VU);

export function setup() {
    createCoupon(stock);
    return { t0: Date.now() + connectSeconds * 1000 };
}

export default function repeatStorm({ t0 }) {
    connect(user, t0, connectSeconds, (__VU - 1) / users);
    const mine = newUserAsks(user, couponId, null);
    untilMillis(t0);
    for (let times = 1; times <= repeats; times += 1) {
        // The last time it is the answer that counts.
        const again = times < repeats ? askOnce(user, couponId, t0) : askUntilFinal(user, couponId, t0);
        if (mine.won && again.final && (again.outcome !== 'ALREADY_ISSUED' || again.ticket !== mine.ticket)) {
            contradiction(`${again.outcome} ${again.ticket} to the holder of ${mine.ticket}`);
        }
    }
}

export function handleSummary(data) {
    return summaryOf(data, { stock });
}
