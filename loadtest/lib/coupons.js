// What an admin does: create a coupon, raise its stock.
import http from 'k6/http';
import { sleep } from 'k6';
import { bases, couponId, runId } from './env.js';
import { headersOf } from './identity.js';

const TRIES = 20;

/// Calls until the answer is known: repeating a creation or a change is the same creation or change.
function insist(what, expected, call) {
    let answer;
    for (let tries = 0; tries < TRIES; tries += 1) {
        answer = call({ headers: headersOf('loadtest-admin', true), timeout: '20s' });
        if (expected.includes(answer.status)) return;
        if (answer.status >= 400 && answer.status < 500 && answer.status !== 429) break;
        sleep(1);
    }
    throw new Error(`${what} at ${bases[0]} answered ${answer.status || answer.error}: ${answer.body}`);
}

export function createCoupon(stock, id = couponId) {
    const terms = JSON.stringify({
        coupon_id: id,
        name: `load test ${runId}`,
        kind: __ENV.KIND || 'FIRST_COME',
        discount: { type: 'FIXED', value: 1000 },
        total_quantity: stock,
    });
    insist('creating the coupon', [201, 200], (params) => http.post(`${bases[0]}/api/v1/coupons`, terms, params));
}

export function setStock(stock, id = couponId) {
    const change = JSON.stringify({ total_quantity: stock });
    insist('raising the stock', [200], (params) => http.patch(`${bases[0]}/api/v1/coupons/${id}`, change, params));
}
