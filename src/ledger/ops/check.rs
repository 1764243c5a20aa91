//! Checks on the tables alone. Each query is one statement, so each sees one instant while commits go on.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};

use crate::ledger::TableFault;
use crate::ledger::errors::Fault;
use crate::ledger::rows::coupon_id;
use crate::ledger::session::Session;

/// Coupons of one statement: each has its rows counted.
const PAGE: usize = 20;

#[derive(Debug, QueryableByName)]
struct Counted {
    #[diesel(sql_type = Text)]
    coupon_id: String,
    #[diesel(sql_type = BigInt)]
    issued: i64,
    #[diesel(sql_type = BigInt)]
    total_quantity: i64,
    #[diesel(sql_type = BigInt)]
    next_sequence: i64,
    #[diesel(sql_type = BigInt)]
    row_count: i64,
    #[diesel(sql_type = BigInt)]
    dead_count: i64,
    #[diesel(sql_type = BigInt)]
    revoked_count: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    top_sequence: Option<i64>,
}

#[derive(Debug, QueryableByName)]
struct Double {
    #[diesel(sql_type = Text)]
    coupon_id: String,
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = BigInt)]
    sequence: i64,
}

const COUNTED: &str = "SELECT c.coupon_id, c.issued, c.total_quantity, c.next_sequence, \
    (SELECT COUNT(*) FROM issued_coupons i WHERE i.coupon_id = c.coupon_id) AS row_count, \
    (SELECT COUNT(*) FROM dead_letters d WHERE d.coupon_id = c.coupon_id AND d.state IN ('open', 'abandoning')) AS dead_count, \
    (SELECT COUNT(*) FROM revocations r WHERE r.coupon_id = c.coupon_id) AS revoked_count, \
    (SELECT MAX(i.sequence) FROM issued_coupons i WHERE i.coupon_id = c.coupon_id) AS top_sequence \
    FROM coupons c WHERE c.coupon_id > ? ORDER BY c.coupon_id LIMIT 20";

/// Each kind of double with the query that finds it: (coupon, user, sequence) of the row that is one too many.
const DOUBLES: [(&str, &str); 6] = [
    (
        "revoked_holds",
        "SELECT i.coupon_id, i.user_id, i.sequence FROM revocations r \
         JOIN issued_coupons i ON i.coupon_id = r.coupon_id AND i.user_id = r.user_id LIMIT 100",
    ),
    (
        "double_sequence",
        "SELECT i.coupon_id, i.user_id, i.sequence FROM revocations r \
         JOIN issued_coupons i ON i.coupon_id = r.coupon_id AND i.sequence = r.sequence AND i.user_id <> r.user_id LIMIT 100",
    ),
    (
        "double_user",
        "SELECT i.coupon_id, i.user_id, i.sequence FROM dead_letters d \
         JOIN issued_coupons i ON i.coupon_id = d.coupon_id AND i.user_id = d.user_id \
         WHERE d.state IN ('open', 'abandoning') LIMIT 100",
    ),
    (
        "double_sequence",
        "SELECT i.coupon_id, i.user_id, i.sequence FROM dead_letters d \
         JOIN issued_coupons i ON i.coupon_id = d.coupon_id AND i.sequence = d.sequence AND i.user_id <> d.user_id \
         WHERE d.state IN ('open', 'abandoning') LIMIT 100",
    ),
    (
        "dead_letter_without_row",
        "SELECT d.coupon_id, d.user_id, d.sequence FROM dead_letters d \
         LEFT JOIN issued_coupons i ON i.coupon_id = d.coupon_id AND i.sequence = d.sequence AND i.user_id = d.user_id \
         LEFT JOIN revocations r ON r.coupon_id = d.coupon_id AND r.sequence = d.sequence AND r.user_id = d.user_id \
         WHERE d.state IN ('replayed', 'abandoned') AND d.coupon_id IS NOT NULL AND i.sequence IS NULL AND r.sequence IS NULL LIMIT 100",
    ),
    (
        "row_without_coupon",
        "SELECT i.coupon_id, MIN(i.user_id) AS user_id, MIN(i.sequence) AS sequence FROM issued_coupons i \
         LEFT JOIN coupons c ON c.coupon_id = i.coupon_id WHERE c.coupon_id IS NULL GROUP BY i.coupon_id LIMIT 100",
    ),
];

pub(in crate::ledger) async fn self_check<S: Session>(session: &mut S) -> Result<Vec<TableFault>, Fault> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let page: Vec<Counted> = session.load(diesel::sql_query(COUNTED).bind::<Text, _>(after.clone())).await?;
        for row in &page {
            judge(row, &mut found)?;
            after.clone_from(&row.coupon_id);
        }
        if page.len() < PAGE {
            break;
        }
    }
    for (kind, query) in DOUBLES {
        let rows: Vec<Double> = session.load(diesel::sql_query(query)).await?;
        for row in rows {
            let detail = format!("user {}, sequence {}", row.user_id, row.sequence);
            found.push(TableFault { kind, coupon: coupon_id(&row.coupon_id)?, user: Some(row.user_id), detail });
        }
    }
    Ok(found)
}

fn judge(row: &Counted, found: &mut Vec<TableFault>) -> Result<(), Fault> {
    let coupon = coupon_id(&row.coupon_id)?;
    let mut report = |kind: &'static str, detail: String| found.push(TableFault { kind, coupon, user: None, detail });
    if row.issued > row.total_quantity {
        report("over_issue", format!("{} issued of {}", row.issued, row.total_quantity));
    }
    if row.row_count + row.dead_count != row.issued {
        report("count_wrong", format!("{} issued, but {} rows and {} open dead letters", row.issued, row.row_count, row.dead_count));
    }
    if let Some(top) = row.top_sequence.filter(|top| *top >= row.next_sequence) {
        report("counters_differ", format!("a row has sequence {top}, the next one to give is {}", row.next_sequence));
    }
    // Every number given out is a row, an unsettled dead letter or a revocation.
    let accounted = row.row_count + row.dead_count + row.revoked_count;
    if accounted != row.next_sequence - 1 {
        report("counters_differ", format!("{} numbers given out, {accounted} accounted for", row.next_sequence - 1));
    }
    Ok(())
}
