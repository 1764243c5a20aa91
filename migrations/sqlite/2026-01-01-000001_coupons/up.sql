-- One row a coupon: its terms as they hold now, and the counters of the rule.
CREATE TABLE coupons (
    coupon_id CHAR(36) NOT NULL PRIMARY KEY,
    part INT NOT NULL,
    version BIGINT NOT NULL,
    change_id CHAR(36) NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    discount_type VARCHAR(16) NOT NULL,
    discount_value BIGINT NOT NULL,
    total_quantity BIGINT NOT NULL,
    opens_at BIGINT NULL,
    closes_at BIGINT NULL,
    status VARCHAR(16) NOT NULL,
    issued BIGINT NOT NULL,
    next_sequence BIGINT NOT NULL,
    CONSTRAINT coupons_issued_within_total CHECK (issued <= total_quantity)
);
CREATE INDEX coupons_part ON coupons (part, coupon_id);
