-- One row a coupon: its terms as they hold now, and the counters of the rule.
CREATE TABLE IF NOT EXISTS coupons (
    coupon_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    part INT NOT NULL,
    version BIGINT NOT NULL,
    change_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    kind TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    discount_type VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    discount_value BIGINT NOT NULL,
    total_quantity BIGINT NOT NULL,
    opens_at BIGINT NULL,
    closes_at BIGINT NULL,
    status VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    issued BIGINT NOT NULL,
    next_sequence BIGINT NOT NULL,
    CONSTRAINT coupons_issued_within_total CHECK (issued <= total_quantity),
    KEY coupons_part (part, coupon_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
