//! The issuer on a real journal, ledger, gate and follower: what it does when one of them is wrong, behind or silent.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::domain::testing::user;
use crate::domain::{Discount, Status, TermsDraft, TermsPatch};
use crate::follower;
use crate::journal::SqliteJournal;
use crate::ledger::SqliteLedger;

struct World {
    journal: Arc<SqliteJournal>,
    gate: Arc<LocalGate>,
    follower: Arc<Follower>,
    issuer: Arc<Issuer>,
    _dir: tempfile::TempDir,
}

fn draft(total_quantity: i64) -> TermsDraft {
    let (name, kind) = ("coupon".to_owned(), "FIRST_COME".to_owned());
    TermsDraft { name, kind, discount: Discount::Fixed(1), total_quantity, opens_at: None, closes_at: None }
}

impl World {
    /// With a reader that stands still.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Arc::new(SqliteJournal::open(&dir.path().join("journal.db")).unwrap());
        let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).unwrap();
        ledger.migrate().await.unwrap();
        ledger.fix_partitions(1).await.unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let port = Arc::clone(&journal) as Arc<dyn Journal>;
        let follower = Follower::start(Arc::clone(&port), &ledger, follower::Options::default(), Arc::clone(&metrics)).await.unwrap();
        let gate = Arc::new(LocalGate::new());
        let asked = Arc::clone(&gate) as Arc<dyn Gate>;
        let issuer = Issuer::new(Arc::clone(&follower), port, asked, Arc::new(ledger), Options::default(), metrics);
        Self { journal, gate, follower, issuer: Arc::new(issuer), _dir: dir }
    }

    /// Until the guard is dropped.
    fn read(&self) -> DropGuard {
        let cancel = CancellationToken::new();
        tokio::spawn(Arc::clone(&self.follower).tail(0, cancel.clone()));
        cancel.drop_guard()
    }

    async fn is_no_longer_fresh(&self, coupon: CouponId) {
        while self.follower.fresh(coupon) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn create(&self, total: i64) -> CouponId {
        match self.issuer.create(None, draft(total)).await {
            CreateAnswer::Created(view) => view.coupon,
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&self, coupon: CouponId, name: &str) -> IssueAnswer {
        self.issuer.issue(coupon, &user(name), "").await
    }

    async fn change(&self, coupon: CouponId, patch: TermsPatch, if_match: Option<i64>) -> ChangeAnswer {
        self.issuer.change(coupon, &patch, if_match).await
    }

    /// Somebody else's append.
    async fn append(&self, coupon: CouponId, body: &Body) {
        self.journal.append(0, coupon, encode(body).unwrap()).await.unwrap();
    }

    /// What the gate said so far: pass, seen, full.
    fn verdicts(&self) -> [u64; 3] {
        let said = &self.issuer.metrics.gate_verdicts;
        [said.pass.get(), said.seen.get(), said.full.get()]
    }

    async fn records(&self) -> i64 {
        self.journal.bounds(0).await.unwrap().end
    }
}

fn accepted(answer: IssueAnswer) -> Option<Sequence> {
    match answer {
        IssueAnswer::Accepted { sequence, .. } => Some(sequence),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_gate_let_through_and_the_log_does_not_know_takes_no_slot_and_loses_none() {
    let world = World::new().await;
    let _reading = world.read();
    let coupon = world.create(2).await;
    for name in ["gone", "alice"] {
        let ask = Ask { coupon, user: user(name), total: 2, issued: 0 };
        assert_eq!(world.gate.admit(ask).await.unwrap(), Verdict::Pass);
    }
    // The gate has seen alice and is full for bob; both have their slot all the same.
    assert_eq!(accepted(world.ask(coupon, "alice").await), Some(1));
    assert_eq!(accepted(world.ask(coupon, "bob").await), Some(2));
    assert_eq!(world.ask(coupon, "gone").await, IssueAnswer::SoldOut);
    assert_eq!(world.verdicts(), [0, 1, 1], "the last one was answered without the gate");
    let other = world.create(1).await;
    assert_eq!(accepted(world.ask(other, "alice").await), Some(1));
    assert_eq!(world.verdicts(), [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_asks_many_times_at_once_is_one_record_and_has_won_once() {
    let world = World::new().await;
    let _reading = world.read();
    let coupon = world.create(5).await;
    let answers = join_all((0..20).map(|_| world.ask(coupon, "alice"))).await;
    assert_eq!(answers.iter().filter(|answer| accepted(**answer) == Some(1)).count(), 1, "{answers:?}");
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, IssueAnswer::Accepted { sequence: 1, .. } | IssueAnswer::AlreadyIssued { sequence: 1, .. }))
    );
    // What is queued goes before it.
    world.append(coupon, &Body::Issue { user_id: user("bob"), at: 1, trace_id: String::new() }).await;
    assert_eq!(world.records().await, 3, "the first asks the log for all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hearing_from_the_log_a_holder_is_a_holder_and_nothing_else_is_known() {
    let world = World::new().await;
    let reading = world.read();
    let (open, full, paused) = (world.create(5).await, world.create(1).await, world.create(5).await);
    assert_eq!(accepted(world.ask(full, "alice").await), Some(1));
    assert_eq!(world.ask(full, "bob").await, IssueAnswer::SoldOut);
    let pause = TermsPatch { status: Some(Status::Paused), ..TermsPatch::default() };
    assert!(matches!(world.change(paused, pause, None).await, ChangeAnswer::Done(_)));
    assert_eq!(world.ask(paused, "bob").await, IssueAnswer::Paused);
    drop(reading);
    world.is_no_longer_fresh(open).await;
    let before = world.records().await;
    assert!(matches!(world.ask(full, "alice").await, IssueAnswer::AlreadyIssued { sequence: 1, .. }));
    for coupon in [open, full, paused] {
        assert_eq!(world.ask(coupon, "bob").await, IssueAnswer::Unavailable);
    }
    assert_eq!(world.records().await, before, "no hope is queued for a log that is not heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_process_has_not_read_yet_is_not_said_to_be_absent() {
    let world = World::new().await;
    let coupon = CouponId::random();
    world.append(coupon, &Body::Terms(draft(5).first_version(Uuid::new_v4()))).await;
    assert_eq!(world.ask(coupon, "alice").await, IssueAnswer::Unavailable);
    assert_eq!(world.issuer.result_of(coupon, &user("alice")).await, ResultAnswer::Unavailable);
    assert_eq!(world.issuer.coupon(coupon).await, Err(Unavailable));
    assert_eq!(world.change(coupon, TermsPatch::default(), None).await, ChangeAnswer::Unavailable);
    assert_eq!(world.issuer.create(Some(coupon), draft(5)).await, CreateAnswer::Unavailable);
    assert_eq!(world.records().await, 1, "nothing was proposed on what is not known");

    let reading = world.read();
    assert_eq!(world.issuer.result_of(coupon, &user("alice")).await, ResultAnswer::NotRequested);
    assert!(matches!(world.issuer.create(Some(coupon), draft(5)).await, CreateAnswer::Same(_)));
    drop(reading);
    world.is_no_longer_fresh(coupon).await;
    world.append(coupon, &Body::Issue { user_id: user("alice"), at: now_millis(), trace_id: String::new() }).await;
    assert_eq!(world.issuer.result_of(coupon, &user("alice")).await, ResultAnswer::Unavailable, "not \"not requested\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_another_version_or_of_a_closed_coupon_is_refused_before_the_log() {
    let world = World::new().await;
    let _reading = world.read();
    let coupon = world.create(5).await;
    assert!(accepted(world.ask(coupon, "alice").await).is_some() && accepted(world.ask(coupon, "bob").await).is_some());
    let restock = TermsPatch { total_quantity: Some(9), ..TermsPatch::default() };
    assert!(matches!(world.change(coupon, restock.clone(), Some(1)).await, ChangeAnswer::Done(_)));
    let less = TermsPatch { total_quantity: Some(7), ..TermsPatch::default() };
    assert!(matches!(world.change(coupon, less.clone(), Some(1)).await, ChangeAnswer::Version(view) if view.terms.version == 2));
    let fewer = TermsPatch { total_quantity: Some(1), ..TermsPatch::default() };
    for _ in 0..2 {
        let lowered = world.change(coupon, fewer.clone(), None).await;
        assert!(matches!(&lowered, ChangeAnswer::Done(view) if (view.terms.version, view.terms.total_quantity) == (3, 2)), "{lowered:?}");
    }
    let close = TermsPatch { status: Some(Status::Closed), ..TermsPatch::default() };
    assert!(matches!(world.change(coupon, close.clone(), Some(3)).await, ChangeAnswer::Done(_)));
    let before = world.records().await;
    assert!(matches!(world.change(coupon, close, None).await, ChangeAnswer::Done(_)), "it is so already");
    let open = TermsPatch { status: Some(Status::Open), ..TermsPatch::default() };
    for patch in [open, less] {
        assert!(matches!(world.change(coupon, patch, None).await, ChangeAnswer::Closed(_)));
    }
    assert_eq!(world.records().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_seen_is_no_answer_until_it_is() {
    let world = World::new().await;
    let reading = world.read();
    let coupon = world.create(5).await;
    drop(reading);
    let asked = tokio::time::timeout(Duration::from_secs(10), world.ask(coupon, "alice")).await;
    assert_eq!(asked, Ok(IssueAnswer::Unavailable));
    let _reading = world.read();
    let settled = async {
        loop {
            match world.ask(coupon, "alice").await {
                IssueAnswer::Unavailable => {}
                answer => return answer,
            }
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(10), settled).await.unwrap();
    assert!(matches!(settled, IssueAnswer::AlreadyIssued { sequence: 1, .. } | IssueAnswer::Accepted { sequence: 1, .. }), "{settled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_its_window_a_coupon_is_not_asked_for_in_the_log() {
    let world = World::new().await;
    let _reading = world.read();
    let opens_at = now_millis() + 3_600_000;
    for (draft, no) in [
        (TermsDraft { opens_at: Some(opens_at), ..draft(5) }, IssueAnswer::NotOpen { opens_at }),
        (TermsDraft { closes_at: Some(1), ..draft(5) }, IssueAnswer::Closed),
    ] {
        let CreateAnswer::Created(view) = world.issuer.create(None, draft).await else { panic!("not created") };
        let before = world.records().await;
        assert_eq!(world.ask(view.coupon, "alice").await, no);
        assert_eq!(world.records().await, before);
    }
}

/// Has no room for anybody.
#[derive(Debug, Default)]
struct FullGate {
    asked: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl Gate for FullGate {
    async fn admit(&self, _: Ask) -> Result<Verdict, crate::gate::Away> {
        self.asked.notify_one();
        Ok(Verdict::Full)
    }

    async fn members(&self, _: CouponId) -> Result<i64, crate::gate::Away> {
        Ok(0)
    }

    async fn forget(&self, _: CouponId) -> Result<(), crate::gate::Away> {
        Ok(())
    }

    fn reachable(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_a_full_gate_hears_what_the_log_makes_of_the_coupon() {
    let world = World::new().await;
    let _reading = world.read();
    let gate = Arc::new(FullGate::default());
    // Nothing but the log ends the wait before the deadline.
    let options = Options { deadline: Duration::from_secs(30), full_wait: Duration::from_secs(3_600) };
    let issuer = Issuer {
        gate: Arc::clone(&gate) as Arc<dyn Gate>,
        options,
        follower: Arc::clone(&world.follower),
        journal: Arc::clone(&world.issuer.journal),
        fallback: LocalGate::new(),
        ledger: Arc::clone(&world.issuer.ledger),
        metrics: Arc::clone(&world.issuer.metrics),
        look_ups: Semaphore::new(LOOK_UPS),
    };
    let issue = Body::Issue { user_id: user("alice"), at: now_millis(), trace_id: String::new() };
    for (sold, status, no) in [
        (true, Status::Open, IssueAnswer::SoldOut),
        (false, Status::Paused, IssueAnswer::Paused),
        (false, Status::Closed, IssueAnswer::Closed),
    ] {
        let coupon = world.create(1).await;
        let happens = async {
            gate.asked.notified().await;
            if sold {
                world.append(coupon, &issue).await;
            } else {
                let patch = TermsPatch { status: Some(status), ..TermsPatch::default() };
                assert!(matches!(world.change(coupon, patch, None).await, ChangeAnswer::Done(_)));
            }
        };
        let bob = user("bob");
        let (answer, ()) = tokio::join!(issuer.issue(coupon, &bob, ""), happens);
        assert_eq!(answer, no);
    }
}
