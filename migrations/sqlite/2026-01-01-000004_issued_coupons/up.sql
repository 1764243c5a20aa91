-- One row a win. User ids are compared byte by byte: Alice is not alice.
CREATE TABLE issued_coupons (
    coupon_id CHAR(36) NOT NULL,
    sequence BIGINT NOT NULL,
    user_id VARCHAR(64) NOT NULL,
    issue_id CHAR(36) NOT NULL,
    log_offset BIGINT NOT NULL,
    requested_at BIGINT NOT NULL,
    issued_at BIGINT NOT NULL,
    PRIMARY KEY (coupon_id, sequence)
);
CREATE UNIQUE INDEX issued_coupons_user ON issued_coupons (coupon_id, user_id);
CREATE INDEX issued_coupons_of_user ON issued_coupons (user_id, issued_at);
