// A steady inflow: RATE new users a second, each asks once for one of COUPONS coupons that have plenty.
import exec from 'k6/execution';
import { newUserAsks } from '../../loadtest/lib/ask.js';
import { createCoupon } from '../../loadtest/lib/coupons.js';
import { couponNumber, number } from '../../loadtest/lib/env.js';
import { userOf } from '../../loadtest/lib/identity.js';
import { arrivals, shared } from '../../loadtest/lib/options.js';
import { summaryOf } from '../../loadtest/lib/summary.js';

const coupons = number('COUPONS', 16);
const stock = 10000000;

export const options = { ...shared, scenarios: { inflow: arrivals(number('RATE', 1200), `${number('RUN_SECONDS', 60)}s`) } };

export function setup() {
    for (let index = 0; index < coupons; index += 1) createCoupon(stock, couponNumber(index));
    return { t0: Date.now() };
}

export default function inflow({ t0 }) {
    const index = exec.scenario.iterationInTest;
    newUserAsks(userOf(index), couponNumber(index % coupons), t0);
}

export function handleSummary(data) {
    return summaryOf(data, { stock });
}
