-- The live consumers, among which partitions are shared.
CREATE TABLE consumers (
    owner VARCHAR(255) NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
