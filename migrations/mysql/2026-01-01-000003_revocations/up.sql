-- Wins taken back, with where they were won and where they were taken back.
CREATE TABLE IF NOT EXISTS revocations (
    coupon_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    user_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    sequence BIGINT NOT NULL,
    won_offset BIGINT NOT NULL,
    log_offset BIGINT NOT NULL,
    reason TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (coupon_id, sequence),
    UNIQUE KEY revocations_user (coupon_id, user_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
