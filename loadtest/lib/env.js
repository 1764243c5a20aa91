// What the scripts hand over in the environment.

export function number(name, otherwise) {
    const text = __ENV[name];
    if (text === undefined || text === '') return otherwise;
    const value = Number(text);
    if (!Number.isFinite(value)) throw new Error(`${name} is '${text}'; it must be a number`);
    return value;
}

/// The APIs; users are spread over them in turn.
export const bases = __ENV.BASE_URLS.split(',').map((url) => url.trim().replace(/\/+$/, ''));

export const runId = __ENV.RUN_ID;

/// The coupon of the run; of many it is number 0.
export const couponId = __ENV.COUPON_ID;

/// Coupon `index` of a run with `count` of them: they differ in the last four digits only, so that the audit's report can be searched for
/// them.
export function couponNumber(index, count = 2) {
    return count === 1 ? couponId : `${couponId.slice(0, -4)}${index.toString(16).padStart(4, '0')}`;
}
