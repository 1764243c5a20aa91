//! Records in the form brokers keep them.

use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record, RecordBatchDecoder, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};
use tokio_util::bytes::{Buf, Bytes, BytesMut};

use super::super::{JournalError, RawRecord};
use super::unknown;
use crate::domain::{EpochMillis, Offset};

/// Upper bound of a record's bytes besides key and value: lengths, attributes, deltas, header count.
pub const OVERHEAD: usize = 16;
/// A batch's bytes before what its length counts: base offset and that length.
const PREFIX: usize = 12;

/// What a record of ours consists of.
pub type KeyValue = (Bytes, Bytes);

/// One batch.
pub fn encode<'a>(records: impl IntoIterator<Item = &'a KeyValue>, at: EpochMillis) -> Result<Bytes, JournalError> {
    let record = |(offset, (key, value)): (i64, &KeyValue)| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset,
        // The encoder makes a batch of records whose sequence and offset go up together, and numbers it by the first: -1, for none.
        sequence: i32::try_from(offset - 1).unwrap_or(i32::MAX),
        timestamp: at,
        key: Some(key.clone()),
        value: Some(value.clone()),
        headers: Default::default(),
    };
    let records: Vec<_> = (0..).zip(records).map(record).collect();
    let mut batch = BytesMut::new();
    RecordBatchEncoder::encode(&mut batch, &records, &RecordEncodeOptions { version: 2, compression: Compression::None })
        .map_err(|error| unknown("encoding records", &error))?;
    Ok(batch.freeze())
}

/// The records of a fetch, checked: they begin at `from` and have no gap. A last batch that is cut off is left out.
pub fn decode(mut batches: Bytes, from: Offset) -> Result<Vec<RawRecord>, JournalError> {
    let mut found = Vec::new();
    let mut next = from;
    while let Some(mut prefix) = batches.get(..PREFIX) {
        prefix.advance(PREFIX - 4);
        if usize::try_from(prefix.get_i32()).is_ok_and(|length| batches.len() < PREFIX + length) {
            break;
        }
        let set = RecordBatchDecoder::decode(&mut batches).map_err(|error| unknown("fetch", &error))?;
        // The broker answers whole batches: the first may begin before what was asked for.
        for record in set.records.into_iter().filter(|record| record.offset >= from && !record.control) {
            if record.offset != next {
                return Err(JournalError::Damaged(format!("offset {} follows where {next} was expected", record.offset)));
            }
            next += 1;
            found.push(RawRecord {
                offset: record.offset,
                key: record.key.unwrap_or_default(),
                value: record.value.unwrap_or_default(),
                at: record.timestamp,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: Offset, count: u8) -> Vec<u8> {
        let records: Vec<KeyValue> = (0..count).map(|number| (vec![b'k'].into(), vec![number].into())).collect();
        let mut batch = encode(&records, 7).unwrap().to_vec();
        batch[..8].copy_from_slice(&first.to_be_bytes());
        batch
    }

    fn offsets(batches: &[Vec<u8>], from: Offset) -> Result<Vec<Offset>, JournalError> {
        decode(batches.concat().into(), from).map(|found| found.into_iter().map(|record| record.offset).collect())
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let found = decode(batch(5, 2).into(), 5).unwrap();
        let record = |offset, value| RawRecord { offset, key: Bytes::from_static(b"k"), value: vec![value].into(), at: 7 };
        assert_eq!(found, [record(5, 0), record(6, 1)]);
    }

    #[test]
    fn the_front_of_a_batch_is_dropped_and_a_gap_is_damage() {
        assert_eq!(offsets(&[batch(3, 4)], 5).unwrap(), [5, 6]);
        assert_eq!(offsets(&[], 5).unwrap(), [0; 0]);
        assert_eq!(offsets(&[batch(5, 2), batch(7, 1)], 5).unwrap(), [5, 6, 7]);
        assert!(matches!(offsets(&[batch(6, 1)], 5), Err(JournalError::Damaged(_))));
        assert!(matches!(offsets(&[batch(5, 1), batch(7, 1)], 5), Err(JournalError::Damaged(_))));
    }

    #[test]
    fn a_batch_that_is_cut_off_is_left_for_the_next_fetch() {
        let cut = |length: usize| vec![batch(5, 2), batch(7, 1)[..length].to_vec()];
        for length in [0, 5, PREFIX, 40] {
            assert_eq!(offsets(&cut(length), 5).unwrap(), [5, 6], "{length}");
        }
    }

    #[test]
    fn a_flipped_bit_is_no_record() {
        let mut flipped = batch(5, 1);
        *flipped.last_mut().unwrap() ^= 1;
        assert!(matches!(offsets(&[flipped], 5), Err(JournalError::Unknown(_))));
    }
}
