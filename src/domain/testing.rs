//! For the tests of every room.

use uuid::Uuid;

use super::{Discount, Status, Terms, UserId};

pub(crate) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

/// The same each time: a version has one change id.
pub(crate) fn terms(version: i64, total_quantity: i64, status: Status) -> Terms {
    Terms {
        version,
        change_id: Uuid::from_u128(u128::from(version.unsigned_abs())),
        name: "coupon".into(),
        kind: "FIRST_COME".into(),
        discount: Discount::Fixed(1),
        total_quantity,
        opens_at: None,
        closes_at: None,
        status,
    }
}
