-- What could not be written. With a sequence it is a win that keeps its slot.
CREATE TABLE dead_letters (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    part INT NOT NULL,
    log_offset BIGINT NOT NULL,
    coupon_id CHAR(36) NULL,
    user_id VARCHAR(64) NULL,
    sequence BIGINT NULL,
    requested_at BIGINT NULL,
    error TEXT NOT NULL,
    record_key BLOB NOT NULL,
    value BLOB NOT NULL,
    state VARCHAR(16) NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX dead_letters_record ON dead_letters (part, log_offset);
CREATE INDEX dead_letters_coupon ON dead_letters (coupon_id, sequence);
CREATE INDEX dead_letters_state ON dead_letters (state, id);
