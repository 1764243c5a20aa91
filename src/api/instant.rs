//! Instants on the wire: RFC 3339, in any offset in, in UTC out.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::domain::EpochMillis;

/// `None`: RFC 3339 cannot write it.
pub(super) fn to_text(at: EpochMillis) -> Option<String> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000).ok()?.format(&Rfc3339).ok()
}

/// `None`: not RFC 3339. Digits below the millisecond are cut.
pub(super) fn parse(text: &str) -> Option<EpochMillis> {
    let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    i64::try_from(nanos.div_euclid(1_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_survive_the_wire() {
        assert_eq!(to_text(1_767_225_600_123).as_deref(), Some("2026-01-01T00:00:00.123Z"));
        assert_eq!(parse("2026-01-01T09:00:00.1239+09:00"), Some(1_767_225_600_123));
        assert_eq!(to_text(1_767_225_600_000).as_deref(), Some("2026-01-01T00:00:00Z"));
        for bad in ["2026-01-01", "2026-01-01T00:00:00", "1767225600", "2026-02-30T00:00:00Z", ""] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
