//! What went wrong, by what the caller can do about it. The only place that reads error numbers and texts of the databases.

use diesel::result::{DatabaseErrorKind, Error};

use super::LedgerError;
use crate::domain::Partition;

/// A failed statement. Finer than [`LedgerError`]: refused data is told apart, because one row of it becomes a dead letter.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    Fenced(Partition),
    Retry(String),
    Down(String),
    /// A unique key or `issued <= total`.
    Guard(String),
    /// The database refuses this row for what it holds.
    Data(String),
    Schema(String),
}

impl From<Fault> for LedgerError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Fenced(partition) => Self::Fenced(partition),
            Fault::Retry(text) => Self::Retry(text),
            Fault::Down(text) => Self::Down(text),
            Fault::Guard(text) => Self::Guard(text),
            // Refused data that no dead letter can stand for (terms, counters): going on would lose it.
            Fault::Data(text) => Self::Guard(format!("the database refuses the data: {text}")),
            Fault::Schema(text) => Self::Schema(text),
        }
    }
}

/// The check that never should fire; every other check judges a single row.
const TOTAL_GUARD: &str = "coupons_issued_within_total";

fn refused(text: String) -> Fault {
    if text.contains(TOTAL_GUARD) { Fault::Guard(text) } else { Fault::Data(text) }
}

/// Errors that neither database needs to explain; `None`: look closer.
fn common(error: &Error) -> Option<Fault> {
    match error {
        Error::DatabaseError(DatabaseErrorKind::UniqueViolation, info) => Some(Fault::Guard(info.message().to_owned())),
        Error::DatabaseError(DatabaseErrorKind::NotNullViolation | DatabaseErrorKind::CheckViolation, info) => {
            Some(refused(info.message().to_owned()))
        }
        Error::DeserializationError(cause) => Some(Fault::Schema(cause.to_string())),
        _ => None,
    }
}

/// What the server said of its last error: its number and SQLSTATE.
#[derive(Debug, Clone)]
pub(super) struct Diagnosis {
    pub number: i64,
    pub sqlstate: String,
}

/// Reads an error of MySQL or MariaDB. Diesel drops the number, so `diagnosis` brings it; without one the connection itself failed.
pub(super) fn mysql(error: &Error, diagnosis: Option<&Diagnosis>) -> Fault {
    if let Some(fault) = common(error) {
        return fault;
    }
    let text = error.to_string();
    let Some(Diagnosis { number, sqlstate }) = diagnosis else {
        return mysql_text(text);
    };
    let named = format!("{text} ({number})");
    match number {
        1062 | 1586 | 1859 => Fault::Guard(named),
        1205 | 1213 | 3572 => Fault::Retry(named),
        // No such table, column or database: not migrated, or another service's.
        1049 | 1054 | 1146 => Fault::Schema(format!("{named}: run coupon-svc migrate")),
        // 4025 is MariaDB's check, 1644 a SIGNAL of a trigger.
        1048 | 1264 | 1265 | 1292 | 1364 | 1366 | 1406 | 1644 | 1690 | 3819 | 4025 => refused(named),
        _ if sqlstate.starts_with("40") => Fault::Retry(named),
        _ if sqlstate.starts_with("22") || sqlstate.starts_with("45") => refused(named),
        // 1040 too many connections, 1053 shutdown, 1114 table full, 1290 and 1836 read-only, 3100 and all the rest.
        _ => Fault::Down(named),
    }
}

/// Without a number: the few texts that ask for a retry, everything else is an outage.
fn mysql_text(text: String) -> Fault {
    if text.contains("try restarting transaction") { Fault::Retry(text) } else { Fault::Down(text) }
}

/// Texts of SQLite that speak of the file or the machine, not of the row.
const SQLITE_DOWN: [&str; 14] = [
    "database is locked",
    "database table is locked",
    "database schema is locked",
    "disk I/O error",
    "database or disk is full",
    "attempt to write a readonly database",
    "unable to open database file",
    "database disk image is malformed",
    "file is not a database",
    "out of memory",
    "interrupted",
    "locking protocol",
    "bad parameter or other API misuse",
    "transaction",
];

/// Reads an error of SQLite. What a trigger says by RAISE(ABORT) is free text: whatever is not an outage is refused data.
pub(super) fn sqlite(error: &Error) -> Fault {
    if let Some(fault) = common(error) {
        return fault;
    }
    let text = error.to_string();
    match error {
        Error::DatabaseError(DatabaseErrorKind::Unknown, _) => {
            if text.starts_with("no such table") || text.starts_with("no such column") {
                Fault::Schema(format!("{text}: run coupon-svc migrate"))
            } else if SQLITE_DOWN.iter().any(|known| text.contains(known)) {
                Fault::Down(text)
            } else {
                Fault::Data(text)
            }
        }
        _ => Fault::Down(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(text: &str) -> Error {
        Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text.to_owned()))
    }

    fn by_number(number: i64) -> Fault {
        mysql(&unknown("text"), Some(&Diagnosis { number, sqlstate: "HY000".into() }))
    }

    #[test]
    fn mysql_errors_are_sorted_by_number() {
        for number in [1213, 1205] {
            assert!(matches!(by_number(number), Fault::Retry(_)), "{number}");
        }
        for number in [1406, 1264, 1366, 1644, 4025] {
            assert!(matches!(by_number(number), Fault::Data(_)), "{number}");
        }
        for number in [2002, 2006, 2013, 1040, 1290, 1836, 1114, 1021, 1053, 3100, 99_999] {
            assert!(matches!(by_number(number), Fault::Down(_)), "{number}");
        }
        assert!(matches!(by_number(1146), Fault::Schema(_)));
        assert!(matches!(mysql(&unknown("connection closed"), None), Fault::Down(_)));
        let check = unknown("CONSTRAINT `coupons_issued_within_total` failed");
        assert!(matches!(mysql(&check, Some(&Diagnosis { number: 4025, sqlstate: "23000".into() })), Fault::Guard(_)));
    }

    #[test]
    fn sqlite_errors_are_sorted_by_text() {
        assert!(matches!(sqlite(&unknown("database is locked")), Fault::Down(_)));
        assert!(matches!(sqlite(&unknown("no such table: coupons")), Fault::Schema(_)));
        assert!(matches!(sqlite(&unknown("poisoned")), Fault::Data(_)));
    }
}
