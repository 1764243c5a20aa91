// Many coupons at a time: RATE new users a second; every second one wants the hot coupon, the others share the rest evenly.
import exec from 'k6/execution';
import { newUserAsks } from './lib/ask.js';
import { createCoupon } from './lib/coupons.js';
import { couponNumber, number } from './lib/env.js';
import { userOf } from './lib/identity.js';
import { arrivals, shared } from './lib/options.js';
import { summaryOf } from './lib/summary.js';

const coupons = number('COUPONS', 100);
const hotStock = number('STOCK', 1000);
const otherStock = number('OTHER_STOCK', 100);

export const options = { ...shared, scenarios: { mixed: arrivals(number('RATE', 500), __ENV.DURATION || '60s') } };

export function setup() {
    for (let index = 0; index < coupons; index += 1) createCoupon(index === 0 ? hotStock : otherStock, couponNumber(index));
    return { t0: Date.now() };
}

/// Users 0, 2, 4... want coupon 0; users 1, 3, 5... want coupons 1, 2, 3... in turn.
function wishOf(number) {
    return number % 2 === 0 || coupons === 1 ? 0 : 1 + (((number - 1) / 2) % (coupons - 1));
}

function winnersAmong(users) {
    const asked = new Array(coupons).fill(0);
    for (let number = 0; number < users; number += 1) asked[wishOf(number)] += 1;
    return asked.reduce((sum, count, index) => sum + Math.min(count, index === 0 ? hotStock : otherStock), 0);
}

export default function mixed({ t0 }) {
    const number = exec.scenario.iterationInTest;
    newUserAsks(userOf(number), couponNumber(wishOf(number)), t0);
}

export function handleSummary(data) {
    return summaryOf(data, { stock: hotStock + (coupons - 1) * otherStock, expected: winnersAmong });
}
