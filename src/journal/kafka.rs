//! journal/kafka
pub struct KafkaJournal;
pub struct KafkaOptions;
pub struct KafkaSasl;
pub struct KafkaTls;
