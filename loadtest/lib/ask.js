// A user asks for a coupon: one request, or again and again until the answer is final. Every answer is counted by what it says, and
// every user by how it ended.
import http from 'k6/http';
import { sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { number } from './env.js';
import { noteInWindows } from './windows.js';

/// What an answer can be. The first three are the service's words; REFUSED is every other refusal.
export const OUTCOMES = ['ACCEPTED', 'ALREADY_ISSUED', 'SOLD_OUT', 'REFUSED', 'UNAVAILABLE', 'TOO_MANY_REQUESTS', 'TRANSPORT'];
/// How a user can end.
export const ENDS = ['won', 'sold_out', 'refused', 'unanswered'];

/// How long a user goes on asking who is told 503 or 429, or nothing; 0: one request only.
const patienceMs = number('PATIENCE_SECONDS', 60) * 1000;

/// A proxy that lost its server asks another one within the same request: then the first answer seen may be that to a second request.
const proxyRepeats = __ENV.PROXY_REPEATS === '1';

const answers = {};
for (const outcome of OUTCOMES) answers[outcome] = new Counter(`answers_${outcome.toLowerCase()}`);
const ended = {};
for (const end of ENDS) ended[end] = new Counter(`users_${end}`);
const users = new Counter('users');
const contradictions = new Counter('contradictions');
const answerTime = new Trend('answer', true);
const sinceT0 = new Trend('since_t0', true);

/// Something that cannot be, whatever the load: said in the log, and the run fails.
export function contradiction(words) {
    contradictions.add(1);
    console.log(`CONTRADICTION ${words}`);
}

function wordOf(response) {
    if (response.error_code && !response.status) return `TRANSPORT_${response.error_code}`;
    try {
        const word = response.json('result');
        if (/^[A-Z_]+$/.test(word)) return word;
    } catch (_) {
        // Not JSON: named by its status below.
    }
    return `HTTP_${response.status}_WITHOUT_RESULT`;
}

function outcomeOf(word, status) {
    if (!status) return 'TRANSPORT';
    if (word === 'ACCEPTED' && status === 202) return word;
    if (word === 'ALREADY_ISSUED' && status === 200) return word;
    if (word === 'SOLD_OUT' && status === 409) return word;
    if (status === 503) return 'UNAVAILABLE';
    if (status === 429) return 'TOO_MANY_REQUESTS';
    return 'REFUSED';
}

/// One request. Counted unless `t0` is null, as before the measured time.
export function askOnce(user, coupon, t0) {
    const response = http.post(`${user.base}/api/v1/coupons/${coupon}/issue`, null, user.params);
    const word = wordOf(response);
    const outcome = outcomeOf(word, response.status);
    if (t0 !== null) {
        const since = Date.now() - t0;
        sinceT0.add(since);
        answerTime.add(response.timings.duration);
        answers[outcome].add(1);
        noteInWindows(since - response.timings.duration, outcome, response.timings.duration);
        if (!['ACCEPTED', 'ALREADY_ISSUED', 'SOLD_OUT'].includes(outcome)) console.log(`OUTCOME ${word} (${response.status})`);
    }
    const won = outcome === 'ACCEPTED' || outcome === 'ALREADY_ISSUED';
    return {
        outcome,
        won,
        final: won || outcome === 'SOLD_OUT' || outcome === 'REFUSED',
        ticket: won ? `${response.json('issue_id')} ${response.json('sequence')}` : '',
        reconnected: response.timings.connecting > 0,
        retryAfter: Math.min(5, Number(response.headers['Retry-After']) || 1),
    };
}

/// Asks until the answer is final or patience ends; `tries` is how often. After the first try an earlier one may have been carried out
/// unseen.
export function askUntilFinal(user, coupon, t0) {
    const deadline = Date.now() + patienceMs;
    for (let tries = 1; ; tries += 1) {
        const answer = askOnce(user, coupon, t0);
        if (answer.final || Date.now() + answer.retryAfter * 1000 > deadline) return { ...answer, tries };
        sleep(answer.retryAfter);
    }
}

/// Every user begins once and ends once; who begins and does not end was left without an answer.
export function begin() {
    users.add(1);
}

export function end(answer) {
    if (answer.won) ended.won.add(1);
    else if (answer.outcome === 'SOLD_OUT') ended.sold_out.add(1);
    else if (answer.outcome === 'REFUSED') ended.refused.add(1);
    else ended.unanswered.add(1);
}

/// A user nobody has seen before asks, and takes what comes.
export function newUserAsks(user, coupon, t0) {
    begin();
    const answer = askUntilFinal(user, coupon, t0);
    if (answer.outcome === 'ALREADY_ISSUED' && answer.tries === 1 && !proxyRepeats) contradiction('ALREADY_ISSUED to a user who never asked before');
    end(answer);
    return answer;
}
