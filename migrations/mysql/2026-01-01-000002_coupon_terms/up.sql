-- Every change of terms that applied, with its place in the log.
CREATE TABLE IF NOT EXISTS coupon_terms (
    coupon_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
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
    log_offset BIGINT NOT NULL,
    PRIMARY KEY (coupon_id, version)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
