-- Everything of a partition below next_offset is in the tables; the fingerprint is of the record before it.
CREATE TABLE IF NOT EXISTS partition_offsets (
    part INT NOT NULL PRIMARY KEY,
    next_offset BIGINT NOT NULL,
    fingerprint BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
