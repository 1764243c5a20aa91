// Everybody at once: every user is connected first and waits; at T0 all are let go, one request each. Who is told 503 or 429, or
// nothing, asks again while PATIENCE_SECONDS last.
import { Counter } from 'k6/metrics';
import { newUserAsks } from './lib/ask.js';
import { connect, untilMillis } from './lib/clock.js';
import { createCoupon } from './lib/coupons.js';
import { couponId, number } from './lib/env.js';
import { userOf } from './lib/identity.js';
import { shared } from './lib/options.js';
import { summaryOf } from './lib/summary.js';

const users = number('USERS', 10000);
const stock = number('STOCK', 1000);
const connectSeconds = number('CONNECT_SECONDS', 16);

export const options = {
    ...shared,
    scenarios: {
        burst: { executor: 'per-vu-iterations', vus: users, iterations: 1, maxDuration: '10m', gracefulStop: '0s' },
    },
};

const reconnected = new Counter('reconnected');

// Made once for each user, long before T0.
const user = userOf(__VU);

export function setup() {
    createCoupon(stock);
    return { t0: Date.now() + connectSeconds * 1000 };
}

export default function burst({ t0 }) {
    connect(user, t0, connectSeconds, (__VU - 1) / users);
    untilMillis(t0);
    const answer = newUserAsks(user, couponId, t0);
    if (answer.reconnected) reconnected.add(1);
}

export function handleSummary(data) {
    return summaryOf(data, { stock });
}
