DROP TABLE partition_offsets;
