-- One row a win. User ids are compared byte by byte: Alice is not alice.
CREATE TABLE IF NOT EXISTS issued_coupons (
    coupon_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    sequence BIGINT NOT NULL,
    user_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    issue_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    log_offset BIGINT NOT NULL,
    requested_at BIGINT NOT NULL,
    issued_at BIGINT NOT NULL,
    PRIMARY KEY (coupon_id, sequence),
    UNIQUE KEY issued_coupons_user (coupon_id, user_id),
    KEY issued_coupons_of_user (user_id, issued_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
