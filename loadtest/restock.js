// Stock is raised twice after it was sold out: USERS ask at T0 for a third of what they need, and who is told SOLD_OUT asks again every
// second. In the end everybody has one, and asking once more gives the same one.
import { sleep } from 'k6';
import { askUntilFinal, begin, contradiction, end } from './lib/ask.js';
import { connect, untilMillis } from './lib/clock.js';
import { createCoupon, setStock } from './lib/coupons.js';
import { couponId, number } from './lib/env.js';
import { userOf } from './lib/identity.js';
import { shared } from './lib/options.js';
import { summaryOf } from './lib/summary.js';

const users = number('USERS', 3000);
const stocks = [Math.ceil(users / 3), Math.ceil((users * 2) / 3), users];
const scale = number('TIME_SCALE', 1);
const raiseAfterMs = [10, 20].map((seconds) => seconds * 1000 * scale);
const giveUpMs = raiseAfterMs[1] + 60000;
const connectSeconds = number('CONNECT_SECONDS', 8);

export const options = {
    ...shared,
    scenarios: {
        users: { executor: 'per-vu-iterations', vus: users, iterations: 1, maxDuration: '30m', gracefulStop: '0s' },
        admin: { executor: 'per-vu-iterations', exec: 'admin', vus: 1, iterations: 1, maxDuration: '30m', gracefulStop: '0s' },
    },
};

const user = userOf(__VU);

export function setup() {
    createCoupon(stocks[0]);
    return { t0: Date.now() + connectSeconds * 1000 };
}

export function admin({ t0 }) {
    raiseAfterMs.forEach((after, index) => {
        untilMillis(t0 + after);
        setStock(stocks[index + 1]);
    });
}

export default function restock({ t0 }) {
    connect(user, t0, connectSeconds, Math.min(1, (__VU - 1) / users));
    untilMillis(t0);
    begin();
    let answer = askUntilFinal(user, couponId, t0);
    while (answer.outcome === 'SOLD_OUT' && Date.now() < t0 + giveUpMs) {
        sleep(0.5 + Math.random());
        answer = askUntilFinal(user, couponId, t0);
    }
    end(answer);
    if (!answer.won) return;
    const again = askUntilFinal(user, couponId, t0);
    if (again.final && (again.outcome !== 'ALREADY_ISSUED' || again.ticket !== answer.ticket)) {
        contradiction(`${again.outcome} ${again.ticket} to the holder of ${answer.ticket}`);
    }
}

export function handleSummary(data) {
    return summaryOf(data, { stock: users, marks: raiseAfterMs });
}
