// How k6 is to run a scenario.

/// Options every scenario shares; tags are not needed and cost k6 memory.
export const shared = {
    summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max', 'count'],
    systemTags: [],
    setupTimeout: '5m',
    teardownTimeout: '10s',
};

/// An open model: `rate` new users a second whatever the answers take. A user for whom k6 has no hands left is counted as dropped.
export function arrivals(rate, duration) {
    return {
        executor: 'constant-arrival-rate',
        rate,
        timeUnit: '1s',
        duration,
        preAllocatedVUs: Math.min(1000, Math.ceil(rate)),
        maxVUs: Math.min(8000, Math.max(200, Math.ceil(rate * 5))),
        gracefulStop: '90s',
    };
}
