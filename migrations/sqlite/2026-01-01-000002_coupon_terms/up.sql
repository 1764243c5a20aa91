-- Every change of terms that applied, with its place in the log.
CREATE TABLE coupon_terms (
    coupon_id CHAR(36) NOT NULL,
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
    log_offset BIGINT NOT NULL,
    PRIMARY KEY (coupon_id, version)
);
