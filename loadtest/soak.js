// A steady stream for a long time: RATE new users a second, each asks once. Stock is not what ends it.
import exec from 'k6/execution';
import { newUserAsks } from './lib/ask.js';
import { createCoupon } from './lib/coupons.js';
import { couponId, number } from './lib/env.js';
import { userOf } from './lib/identity.js';
import { arrivals, shared } from './lib/options.js';
import { summaryOf } from './lib/summary.js';

const stock = number('STOCK', 10000000);

export const options = { ...shared, scenarios: { soak: arrivals(number('RATE', 200), __ENV.DURATION || '10m') } };

export function setup() {
    createCoupon(stock);
    return { t0: Date.now() };
}

export default function soak({ t0 }) {
    newUserAsks(userOf(exec.scenario.iterationInTest), couponId, t0);
}

export function handleSummary(data) {
    return summaryOf(data, { stock });
}
