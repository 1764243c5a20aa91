-- Who reads a partition, until when. For liveness only: safety is partition_offsets.
CREATE TABLE partition_claims (
    part INT NOT NULL PRIMARY KEY,
    owner VARCHAR(255) NULL,
    expires_at BIGINT NOT NULL
);
