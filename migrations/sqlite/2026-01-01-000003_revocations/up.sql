-- Wins taken back, with where they were won and where they were taken back.
CREATE TABLE revocations (
    coupon_id CHAR(36) NOT NULL,
    user_id VARCHAR(64) NOT NULL,
    sequence BIGINT NOT NULL,
    won_offset BIGINT NOT NULL,
    log_offset BIGINT NOT NULL,
    reason TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (coupon_id, sequence)
);
CREATE UNIQUE INDEX revocations_user ON revocations (coupon_id, user_id);
