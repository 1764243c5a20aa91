DROP TABLE partition_claims;
