-- Who reads a partition, until when. For liveness only: safety is partition_offsets.
CREATE TABLE IF NOT EXISTS partition_claims (
    part INT NOT NULL PRIMARY KEY,
    owner VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
    expires_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
