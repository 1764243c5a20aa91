// More and more users at a time: 5 %, 50 %, 70 % and all of USERS are about, each asks once, thinks for a second, and is followed by a
// new one. Stock is not what ends it.
import { sleep } from 'k6';
import exec from 'k6/execution';
import { newUserAsks } from './lib/ask.js';
import { createCoupon } from './lib/coupons.js';
import { couponId, number } from './lib/env.js';
import { userOf } from './lib/identity.js';
import { shared } from './lib/options.js';
import { summaryOf } from './lib/summary.js';

const users = number('USERS', 10000);
const stock = number('STOCK', 10000000);
const scale = number('TIME_SCALE', 1);
const thinkSeconds = number('THINK_SECONDS', 1);

const CLIMB_SECONDS = 30;
const HOLD_SECONDS = 60;
const seconds = (count) => `${Math.max(1, Math.round(count * scale))}s`;
const steps = [0.05, 0.5, 0.7, 1].map((share) => Math.max(1, Math.round(users * share)));

export const options = {
    ...shared,
    scenarios: {
        ramp: {
            executor: 'ramping-vus',
            startVUs: 0,
            stages: steps.flatMap((target) => [
                { duration: seconds(CLIMB_SECONDS), target },
                { duration: seconds(HOLD_SECONDS), target },
            ]),
            gracefulStop: '90s',
            gracefulRampDown: '90s',
        },
    },
};

export function setup() {
    createCoupon(stock);
    return { t0: Date.now() };
}

export default function ramp({ t0 }) {
    newUserAsks(userOf(`${__VU}-${exec.vu.iterationInScenario}`), couponId, t0);
    sleep(thinkSeconds);
}

export function handleSummary(data) {
    return summaryOf(data, { stock });
}
