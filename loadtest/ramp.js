// More and more users at a time: 5 %, 50 %, 70 % and all of USERS are about, each asks once, thinks for a second, and is followed by a
// new one. Stock is not what ends it.
import { sleep } from 'k6';
import exec from 'k6/execution';
import { newUserAsks } from './lib/ask.js';
import { createCoupon } from './lib/coupons.js';
import { couponNumber, number } from './lib/env.js';
import { userOf } from './lib/identity.js';
import { shared } from './lib/options.js';
import { summaryOf } from './lib/summary.js';
import { windowsBegin } from './lib/windows.js';

const users = number('USERS', 10000);
const stock = number('STOCK', 10000000);
const coupons = number('COUPONS', 1);
const scale = number('TIME_SCALE', 1);
const thinkSeconds = number('THINK_SECONDS', 1);

const CLIMB_SECONDS = 30;
const HOLD_SECONDS = 60;
const seconds = (count) => Math.max(1, Math.round(count * scale));
const steps = [0.05, 0.5, 0.7, 1].map((share) => Math.max(1, Math.round(users * share)));
const stages = steps.flatMap((target) => [
    { seconds: seconds(CLIMB_SECONDS), target },
    { seconds: seconds(HOLD_SECONDS), target },
]);
// How long all of them stay; not scaled when it is given.
stages[stages.length - 1].seconds = number('ALL_SECONDS', stages[stages.length - 1].seconds);
const allThereMs = 1000 * stages.slice(0, -1).reduce((sum, stage) => sum + stage.seconds, 0);
windowsBegin(allThereMs);

export const options = {
    ...shared,
    scenarios: {
        ramp: {
            executor: 'ramping-vus',
            startVUs: 0,
            stages: stages.map((stage) => ({ duration: `${stage.seconds}s`, target: stage.target })),
            gracefulStop: '90s',
            gracefulRampDown: '90s',
        },
    },
};

export function setup() {
    for (let index = 0; index < coupons; index += 1) createCoupon(stock, couponNumber(index, coupons));
    const t0 = Date.now();
    // For whoever does something to the service meanwhile.
    console.log(`T0 ${t0} ALL ${t0 + allThereMs}`);
    return { t0 };
}

export default function ramp({ t0 }) {
    const times = exec.vu.iterationInScenario;
    newUserAsks(userOf(`${__VU}-${times}`), couponNumber((__VU + times) % coupons, coupons), t0);
    sleep(thinkSeconds);
}

export function handleSummary(data) {
    return summaryOf(data, { stock: stock * coupons, more: { all_there_ms: [allThereMs, allThereMs + 1000 * stages[stages.length - 1].seconds] } });
}
