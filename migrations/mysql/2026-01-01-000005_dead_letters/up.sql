-- What could not be written. With a sequence it is a win that keeps its slot.
CREATE TABLE IF NOT EXISTS dead_letters (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    part INT NOT NULL,
    log_offset BIGINT NOT NULL,
    coupon_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NULL,
    user_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    sequence BIGINT NULL,
    requested_at BIGINT NULL,
    error TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    record_key BLOB NOT NULL,
    value BLOB NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE KEY dead_letters_record (part, log_offset),
    KEY dead_letters_coupon (coupon_id, sequence),
    KEY dead_letters_state (state, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
