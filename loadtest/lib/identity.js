// Who asks: a signed token for each user, or plain headers.
import crypto from 'k6/crypto';
import encoding from 'k6/encoding';
import { bases, runId } from './env.js';

function token(claims) {
    const part = (value) => encoding.b64encode(JSON.stringify(value), 'rawurl');
    const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
    return `${signed}.${crypto.hmac('sha256', __ENV.JWT_SECRET, signed, 'base64rawurl')}`;
}

export function headersOf(user, admin) {
    const headers = { 'Content-Type': 'application/json' };
    if (__ENV.IDENTITY === 'jwt') {
        const now = Math.floor(Date.now() / 1000);
        const claims = { sub: user, iat: now, exp: now + 86400 };
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

/// A user of this run, who talks to one of the APIs and nobody else: `number` may go on behind the digits that choose it.
export function userOf(number) {
    return {
        base: bases[(parseInt(number, 10) || 0) % bases.length],
        params: { headers: headersOf(`${runId}-${number}`, false), timeout: '60s' },
    };
}
