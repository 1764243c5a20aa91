// The instant at which everybody is let go.
import http from 'k6/http';
import { sleep } from 'k6';
import { Counter } from 'k6/metrics';

const late = new Counter('late');
const unconnected = new Counter('unconnected');

export function untilMillis(at) {
    const wait = at - Date.now();
    if (wait > 0) sleep(wait / 1000);
}

/// Connects and comes back; `share` (0 to 1) says when within the first two thirds of the time before `t0`, so that connecting is no
/// burst of its own.
export function connect(user, t0, connectSeconds, share) {
    untilMillis(t0 - connectSeconds * 1000 * (1 - (2 / 3) * share));
    const answer = http.get(`${user.base}/api/v1/coupons?limit=1`, user.params);
    if (answer.status !== 200) unconnected.add(1);
    if (Date.now() > t0) late.add(1);
}
