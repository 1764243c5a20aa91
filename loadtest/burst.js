// Everybody at once: every user is connected first and waits; at T0 all are let go, one request each. Run by scripts/burst.sh.
import http from 'k6/http';
import crypto from 'k6/crypto';
import encoding from 'k6/encoding';
import { sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';

const bases = __ENV.BASE_URLS.split(',').map((url) => url.trim().replace(/\/+$/, ''));
const users = Number(__ENV.USERS);
const connectSeconds = Number(__ENV.CONNECT_SECONDS);
const coupon = __ENV.COUPON_ID;

export const options = {
    scenarios: {
        burst: { executor: 'per-vu-iterations', vus: users, iterations: 1, maxDuration: '10m', gracefulStop: '0s' },
    },
    summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max', 'count'],
    systemTags: [],
    setupTimeout: '60s',
    teardownTimeout: '10s',
};

const accepted = new Counter('accepted');
const alreadyIssued = new Counter('already_issued');
const soldOut = new Counter('sold_out');
const other = new Counter('other');
const late = new Counter('late');
const unconnected = new Counter('unconnected');
const reconnected = new Counter('reconnected');
const answer = new Trend('answer_ms');
const sinceT0 = new Trend('since_t0_ms');

function token(claims) {
    const part = (value) => encoding.b64encode(JSON.stringify(value), 'rawurl');
    const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
    return `${signed}.${crypto.hmac('sha256', __ENV.JWT_SECRET, signed, 'base64rawurl')}`;
}

function headersOf(user, admin) {
    const headers = { 'Content-Type': 'application/json' };
    if (__ENV.IDENTITY === 'jwt') {
        const now = Math.floor(Date.now() / 1000);
        const claims = { sub: user, iat: now, exp: now + 3600 };
        if (admin) claims.admin = true;
        if (__ENV.JWT_ISSUER) claims.iss = __ENV.JWT_ISSUER;
        if (__ENV.JWT_AUDIENCE) claims.aud = __ENV.JWT_AUDIENCE;
        headers.Authorization = `Bearer ${token(claims)}`;
    } else {
        headers['X-User-Id'] = user;
        if (admin) headers['X-Admin'] = 'true';
    }
    return headers;
}

// Made once for each user, long before T0.
const base = bases[(__VU - 1 + bases.length) % bases.length];
const request = { headers: headersOf(`${__ENV.RUN_ID}-${__VU}`, false), timeout: '60s' };

export function setup() {
    const terms = {
        coupon_id: coupon,
        name: `burst ${__ENV.RUN_ID}`,
        kind: __ENV.KIND,
        discount: { type: 'FIXED', value: 1000 },
        total_quantity: Number(__ENV.STOCK),
    };
    const made = http.post(`${bases[0]}/api/v1/coupons`, JSON.stringify(terms), { headers: headersOf('burst-admin', true), timeout: '20s' });
    if (made.status !== 201) {
        throw new Error(`creating the coupon at ${bases[0]} answered ${made.status || made.error}: ${made.body}`);
    }
    return { t0: Date.now() + connectSeconds * 1000 };
}

function untilMillis(at) {
    const wait = at - Date.now();
    if (wait > 0) sleep(wait / 1000);
}

function count(response) {
    let word = '';
    if (response.error_code && !response.status) {
        word = `TRANSPORT_${response.error_code}`;
    } else {
        try {
            word = response.json('result') || '';
        } catch (_) {
            // Not JSON: counted by its status below.
        }
        if (!/^[A-Z_]+$/.test(word)) word = `HTTP_${response.status}_WITHOUT_RESULT`;
    }
    if (word === 'ACCEPTED' && response.status === 202) accepted.add(1);
    else if (word === 'ALREADY_ISSUED' && response.status === 200) alreadyIssued.add(1);
    else if (word === 'SOLD_OUT' && response.status === 409) soldOut.add(1);
    else {
        other.add(1);
        console.log(`OUTCOME ${word} (${response.status})`);
    }
}

export default function burst({ t0 }) {
    // Connecting is spread over the first two thirds of the time before T0, so that it is no burst of its own.
    const share = (__VU - 1) / users;
    untilMillis(t0 - connectSeconds * 1000 * (1 - (2 / 3) * share));
    const connected = http.get(`${base}/api/v1/coupons?limit=1`, request);
    if (connected.status !== 200) unconnected.add(1);
    if (Date.now() > t0) late.add(1);

    untilMillis(t0);
    const response = http.post(`${base}/api/v1/coupons/${coupon}/issue`, null, request);
    sinceT0.add(Date.now() - t0);
    answer.add(response.timings.duration);
    if (response.timings.connecting > 0) reconnected.add(1);
    count(response);
}

export function handleSummary(data) {
    const value = (metric, name) => (data.metrics[metric] ? data.metrics[metric].values[name] || 0 : 0);
    const lines = [`T0_MS=${data.setup_data ? data.setup_data.t0 : 0}`];
    for (const name of ['accepted', 'already_issued', 'sold_out', 'other', 'late', 'unconnected', 'reconnected']) {
        lines.push(`N_${name.toUpperCase()}=${value(name, 'count')}`);
    }
    for (const [name, metric] of [['ANSWER', 'answer_ms'], ['SINCE_T0', 'since_t0_ms']]) {
        for (const [label, stat] of [['P50', 'med'], ['P95', 'p(95)'], ['P99', 'p(99)'], ['MAX', 'max']]) {
            lines.push(`${name}_${label}=${Math.round(value(metric, stat))}`);
        }
    }
    return { [__ENV.RESULT_FILE]: `${lines.join('\n')}\n` };
}
