// The end of a run: its numbers as one flat JSON object in RESULT_FILE, read by the scripts.
import { ENDS, OUTCOMES } from './ask.js';
import { windowsOf } from './windows.js';

/// `expected` says how many users must end as winners, given how many asked; `marks` are moments worth a line in the plots, in ms since T0;
/// `more` is what else the scenario has to tell.
export function summaryOf(data, { stock, expected = (users) => Math.min(stock, users), marks = [], more = {} }) {
    const value = (metric, name) => (data.metrics[metric] ? data.metrics[metric].values[name] || 0 : 0);
    const count = (metric) => value(metric, 'count');
    const users = count('users');
    const result = { t0_ms: data.setup_data ? data.setup_data.t0 : 0, users, stock, expected_winners: expected(users) };
    for (const outcome of OUTCOMES) result[`answers_${outcome.toLowerCase()}`] = count(`answers_${outcome.toLowerCase()}`);
    for (const end of ENDS) result[`users_${end}`] = count(`users_${end}`);
    for (const name of ['contradictions', 'late', 'unconnected', 'reconnected', 'dropped_iterations']) result[name] = count(name);
    for (const metric of ['answer', 'since_t0']) {
        for (const [label, stat] of [['p50', 'med'], ['p95', 'p(95)'], ['p99', 'p(99)'], ['max', 'max']]) {
            result[`${metric}_${label}_ms`] = Math.round(value(metric, stat));
        }
    }
    result.marks_ms = marks;
    result.windows = windowsOf(value);
    Object.assign(result, more);
    return { [__ENV.RESULT_FILE]: `${JSON.stringify(result, null, 2)}\n` };
}
