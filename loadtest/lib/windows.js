// Parts of a run that are told apart, each with its own answers and times: WINDOWS="0-90 10-50 50-90", in seconds since `windowsBegin`.
// A request belongs to the windows in which it was sent.
import { Counter, Trend } from 'k6/metrics';

const OUTCOMES = ['ACCEPTED', 'ALREADY_ISSUED', 'SOLD_OUT', 'REFUSED', 'UNAVAILABLE', 'TOO_MANY_REQUESTS', 'TRANSPORT'];

const windows = (__ENV.WINDOWS || '')
    .split(' ')
    .filter((text) => text !== '')
    .map((text, index) => {
        const [from, to] = text.split('-').map((second) => Number(second) * 1000);
        if (!(from < to)) throw new Error(`WINDOWS has '${text}'; it must be like 10-50`);
        const answers = {};
        for (const outcome of OUTCOMES) answers[outcome] = new Counter(`window_${index}_${outcome.toLowerCase()}`);
        return { text, from, to, answers, answer: new Trend(`window_${index}_answer`, true) };
    });

let begin = 0;

/// The windows count from this many milliseconds after T0.
export function windowsBegin(afterT0Ms) {
    begin = afterT0Ms;
}

export function noteInWindows(sentSinceT0Ms, outcome, tookMs) {
    const at = sentSinceT0Ms - begin;
    for (const window of windows) {
        if (at < window.from || at >= window.to) continue;
        window.answers[outcome].add(1);
        window.answer.add(tookMs);
    }
}

/// `value` gives a statistic of a metric.
export function windowsOf(value) {
    return windows.map(({ text }, index) => {
        const found = { window: text };
        for (const outcome of OUTCOMES) found[outcome.toLowerCase()] = value(`window_${index}_${outcome.toLowerCase()}`, 'count');
        for (const [label, stat] of [['p50', 'med'], ['p95', 'p(95)'], ['p99', 'p(99)'], ['max', 'max']]) {
            found[`${label}_ms`] = Math.round(value(`window_${index}_answer`, stat));
        }
        return found;
    });
}
