//! What can be wrong, by name. Alerts and scripts rely on the names: they never change, new ones are added.

use serde::{Serialize, Serializer};

macro_rules! kinds {
    ($(#[doc = $meaning:literal] $kind:ident = $name:literal),+ $(,)?) => {
        /// A kind of violation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $(#[doc = $meaning] $kind),+ }

        impl Kind {
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The name, as in reports and in the label of `coupon_audit_violations`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }

            /// One line for an operator.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$kind => $meaning.trim_ascii()),+ }
            }
        }
    };
}

kinds! {
    /// a user won in the log and has neither a row nor an open dead letter
    RowMissing = "row_missing",
    /// a user has a row and did not win in the log
    RowWithoutRecord = "row_without_record",
    /// rows of a coupon that the ledger does not know
    RowWithoutCoupon = "row_without_coupon",
    /// a user holds a coupon twice
    DoubleUser = "double_user",
    /// a sequence of a coupon is given twice
    DoubleSequence = "double_sequence",
    /// a user's row has another sequence than the log gave
    SequenceWrong = "sequence_wrong",
    /// a user's row names another place in the log than the one it was won at
    OffsetWrong = "offset_wrong",
    /// more is issued than the coupon's total quantity
    OverIssue = "over_issue",
    /// the coupon's count is not the number of its rows and open dead letters
    CountWrong = "count_wrong",
    /// the coupon's counters are not those of the log
    CountersDiffer = "counters_differ",
    /// the coupon's terms are not those of the log
    TermsDiffer = "terms_differ",
    /// a coupon was created in the log and is not in the ledger
    CouponMissing = "coupon_missing",
    /// a coupon is in the ledger and was not created in the log
    CouponWithoutRecord = "coupon_without_record",
    /// a win was taken back in the log and not in the ledger
    RevocationMissing = "revocation_missing",
    /// a win was taken back in the ledger and not in the log
    RevocationWithoutRecord = "revocation_without_record",
    /// a revoked user has a row
    RevokedHolds = "revoked_holds",
    /// a dead letter is settled and left neither a row nor a revocation
    DeadLetterWithoutRow = "dead_letter_without_row",
    /// the ledger's next offset is ahead of what its rows were made of: records were skipped
    OffsetAhead = "offset_ahead",
    /// the ledger's next offset is behind what its rows were made of: records would be read twice
    OffsetBehind = "offset_behind",
    /// the journal lost records that the ledger read, or deleted some that it did not read
    JournalTruncated = "journal_truncated",
    /// the journal skips records
    JournalDamaged = "journal_damaged",
    /// the journal is not the one that the ledger read
    JournalReplaced = "journal_replaced",
}

impl Kind {
    /// The kind of a fault that the ledger found in its own tables.
    pub(super) fn of_tables(name: &str) -> Self {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name).unwrap_or(Self::CountersDiffer)
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_a_meaning() {
        let names: HashSet<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| !kind.meaning().is_empty()));
    }

    #[test]
    fn every_fault_of_the_tables_is_a_kind() {
        for name in crate::ledger::TABLE_FAULTS {
            assert_eq!(Kind::of_tables(name).as_str(), name);
        }
    }
}
