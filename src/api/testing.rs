//! Stand-ins for what the routes need; the issuer is never reached by a test of this room.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{MessageBody, to_bytes};
use actix_web::dev::ServiceResponse;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web;
use async_trait::async_trait;
use serde_json::Value;

use super::{Abandon, ApiOptions, ApiState, App, Identity};
use crate::domain::{CouponId, EpochMillis, Partition, Terms, UserId};
use crate::follower::{self, Follower};
use crate::gate::LocalGate;
use crate::issuer;
use crate::issuer::{Issuer, Unavailable};
use crate::journal::{Journal, SqliteJournal};
use crate::ledger::{
    AuditView, Batch, Committed, CouponRow, DeadLetter, DeadLetterState, DeadWin, IssuedRow, Ledger, LedgerError, Loaded, Page, Position,
    ReplayOutcome, SnapshotSink, TableFault,
};
use crate::telemetry::Metrics;

/// A real issuer on an empty journal; the tests of this room ask it nothing that needs more.
fn issuer() -> Arc<Issuer> {
    let building = async {
        let dir = tempfile::tempdir().unwrap();
        let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(&dir.path().join("journal.db")).unwrap());
        let metrics = Arc::new(Metrics::new().unwrap());
        let follower = Follower::start(Arc::clone(&journal), &FakeLedger, follower::Options::default(), Arc::clone(&metrics)).await;
        let gate = Arc::new(LocalGate::new());
        Arc::new(Issuer::new(follower.unwrap(), journal, gate, Arc::new(FakeLedger), issuer::Options::default(), metrics))
    };
    // On a thread of its own: a runtime may be running here.
    std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(building)).join().unwrap()
}

pub(super) const LETTERS: i64 = 4;

/// An open one that holds no win; not among those listed.
pub(super) const NOT_A_WIN: i64 = 6;

/// Letters 1 to 4, in the states of their order, the last without a win; 5 is unreadable to the ledger.
pub(super) fn letter(id: i64) -> Option<DeadLetter> {
    let state = match id {
        NOT_A_WIN => DeadLetterState::Open,
        _ => *DeadLetterState::ALL.get(usize::try_from(id - 1).ok()?)?,
    };
    let win = DeadWin {
        coupon: "7f9c24e8-3b12-4fef-91e0-cf0f6e9f4d2a".parse().unwrap(),
        user: "alice".parse().unwrap(),
        sequence: id,
        requested_at: 1_767_225_600_000,
    };
    Some(DeadLetter {
        id,
        partition: 7,
        log_offset: 100 + id,
        win: (id != 4 && id != NOT_A_WIN).then_some(win),
        error: "data too long".to_owned(),
        key: b"key".to_vec(),
        value: b"{}".to_vec(),
        state,
        created_at: 1_767_225_600_000,
        updated_at: 1_767_225_600_000,
    })
}

#[derive(Debug)]
struct FakeLedger;

#[async_trait]
impl Ledger for FakeLedger {
    async fn coupons_of(&self, user: &UserId, page: Page<(EpochMillis, CouponId)>) -> Result<Vec<(IssuedRow, Terms)>, LedgerError> {
        let win = letter(1).unwrap().win.unwrap();
        let terms = serde_json::from_value(serde_json::json!({
            "version": 1, "change_id": uuid::Uuid::nil(), "name": "Spring", "kind": "event",
            "discount": {"type": "FIXED", "value": 5}, "total_quantity": 9, "status": "OPEN",
        }));
        let terms: Terms = terms.unwrap();
        let rows = (1..=3_i64).map(|index| {
            let at = 1_767_225_600_000 - index;
            let user = user.clone();
            (IssuedRow { coupon: win.coupon, user, sequence: index, log_offset: index, requested_at: at, issued_at: at }, terms.clone())
        });
        let rows = rows.filter(|(row, _)| page.after.is_none_or(|after| (row.issued_at, row.coupon) < after));
        Ok(rows.take(usize::try_from(page.limit).unwrap()).collect())
    }

    async fn dead_letters(&self, state: Option<DeadLetterState>, page: Page<i64>) -> Result<Vec<DeadLetter>, LedgerError> {
        let letters = (1..=LETTERS).filter(|id| page.after.is_none_or(|after| *id > after)).filter_map(letter);
        let letters = letters.filter(|letter| state.is_none_or(|state| letter.state == state));
        Ok(letters.take(usize::try_from(page.limit).unwrap()).collect())
    }

    async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, LedgerError> {
        if id == LETTERS + 1 { Err(LedgerError::Down("away".to_owned())) } else { Ok(letter(id)) }
    }

    async fn replay(&self, id: i64) -> Result<ReplayOutcome, LedgerError> {
        Ok(match letter(id) {
            None => ReplayOutcome::NotFound,
            Some(letter) if letter.state == DeadLetterState::Open && letter.win.is_none() => ReplayOutcome::NotAWin,
            Some(letter) if letter.state == DeadLetterState::Open => ReplayOutcome::Replayed,
            Some(letter) => ReplayOutcome::State(letter.state),
        })
    }

    async fn migrate(&self) -> Result<Vec<String>, LedgerError> {
        unimplemented!()
    }
    async fn check_schema(&self) -> Result<(), LedgerError> {
        unimplemented!()
    }
    async fn fix_partitions(&self, _: Partition) -> Result<Partition, LedgerError> {
        unimplemented!()
    }
    async fn snapshot(&self, _: Box<dyn SnapshotSink>) -> Result<(), LedgerError> {
        Ok(())
    }
    async fn load(&self, _: &[Partition], _: &HashMap<CouponId, Vec<UserId>>) -> Result<Loaded, LedgerError> {
        unimplemented!()
    }
    async fn commit(&self, _: &Batch) -> Result<Committed, LedgerError> {
        unimplemented!()
    }
    async fn positions(&self) -> Result<Vec<Position>, LedgerError> {
        unimplemented!()
    }
    async fn claim(&self, _: &str, _: Duration) -> Result<Vec<Partition>, LedgerError> {
        unimplemented!()
    }
    async fn unowned(&self) -> Result<Vec<Position>, LedgerError> {
        unimplemented!()
    }
    async fn release(&self, _: &str) -> Result<(), LedgerError> {
        unimplemented!()
    }
    async fn coupon(&self, _: CouponId) -> Result<Option<CouponRow>, LedgerError> {
        unimplemented!()
    }
    async fn issued(&self, _: CouponId, _: &UserId) -> Result<Option<IssuedRow>, LedgerError> {
        unimplemented!()
    }
    async fn unsettled(&self, _: CouponId) -> Result<i64, LedgerError> {
        unimplemented!()
    }
    async fn dead_letter_counts(&self) -> Result<HashMap<DeadLetterState, i64>, LedgerError> {
        unimplemented!()
    }
    async fn abandon(&self, _: i64) -> Result<Option<DeadLetter>, LedgerError> {
        unimplemented!()
    }
    async fn audit_view(&self, _: Partition, _: Option<CouponId>, _: usize) -> Result<Option<AuditView>, LedgerError> {
        unimplemented!()
    }
    async fn self_check(&self) -> Result<Vec<TableFault>, LedgerError> {
        unimplemented!()
    }
    fn pool(&self) -> (u32, u32) {
        (0, 0)
    }
}

struct FakeAbandon;

#[async_trait]
impl Abandon for FakeAbandon {
    async fn abandon(&self, id: i64, _: &str) -> Result<Option<DeadLetter>, Unavailable> {
        if id == LETTERS + 1 { Err(Unavailable) } else { Ok(letter(id)) }
    }
}

/// Everything, with identity by header.
pub(super) fn app_with(options: &ApiOptions) -> web::Data<App> {
    let state = ApiState {
        issuer: issuer(),
        ledger: Arc::new(FakeLedger),
        metrics: Arc::new(Metrics::new().unwrap()),
        identity: Identity::Header,
        abandon: Arc::new(FakeAbandon),
    };
    web::Data::new(App::new(state, options))
}

/// The body as JSON, of the content type that its status asks for.
pub(super) async fn json_of<B: MessageBody>(response: ServiceResponse<B>) -> Value {
    let expected = if response.status().as_u16() >= 400 { "application/problem+json" } else { "application/json" };
    assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), expected);
    let bytes = to_bytes(response.into_body()).await.map_err(|_| "no body").unwrap();
    serde_json::from_slice(&bytes).unwrap()
}
