//! Dead letters.

use super::*;

/// Users `a`, `poison`, `b` win; the database refuses the second.
async fn poisoned(bench: &Bench) -> CouponId {
    bench.poison().await;
    let coupon = CouponId::random();
    let batch = wins(coupon, 10, 0, &["a".to_owned(), "poison".to_owned(), "b".to_owned()]);
    let committed = bench.ledger.commit(&batch).await.unwrap();
    let dead = DeadWin { coupon, user: user("poison"), sequence: 2, requested_at: 77 };
    assert_eq!(committed.rows, 2);
    assert_eq!(committed.dead.into_iter().filter_map(|letter| letter.win).collect::<Vec<_>>(), [dead]);
    coupon
}

async fn only_letter(bench: &Bench) -> DeadLetter {
    let mut letters = bench.ledger.dead_letters(None, Page { limit: 10, after: None }).await.unwrap();
    assert_eq!(letters.len(), 1);
    letters.remove(0)
}

async fn state_of_poison(bench: &Bench, coupon: CouponId) -> Option<UserState> {
    let loaded = bench.ledger.load(&[0], &HashMap::from([(coupon, vec![user("poison")])])).await.unwrap();
    loaded.users.get(&coupon).and_then(|users| users.get(&user("poison"))).copied()
}

pub(super) async fn a_refused_row_becomes_a_dead_letter(bench: Arc<Bench>) {
    let coupon = poisoned(&bench).await;
    let letter = only_letter(&bench).await;
    assert_eq!((letter.partition, letter.log_offset, letter.state), (0, 1, DeadLetterState::Open));
    assert_eq!(letter.win, Some(DeadWin { coupon, user: user("poison"), sequence: 2, requested_at: 77 }));
    assert_eq!(letter.key, coupon.to_string().into_bytes());
    let words = if matches!(bench.kind, Kind::Mysql) { "Data too long for column 'user_id'" } else { "no poison here" };
    assert!(letter.error.contains(words), "{}", letter.error);
    assert_eq!(bench.ledger.unsettled(coupon).await.unwrap(), 1);
    assert_eq!(bench.ledger.issued(coupon, &user("b")).await.unwrap().unwrap().sequence, 3);
    assert_eq!(bench.ledger.issued(coupon, &user("poison")).await.unwrap(), None);
    assert_eq!(state_of_poison(&bench, coupon).await, Some(UserState::Holder(2)));
    let seen = snapshot(&*bench.ledger).await;
    assert_eq!(seen.users[&(coupon, "poison".to_owned())], UserState::Holder(2));
    assert_eq!((seen.users.len(), seen.positions[&0].next), (3, 3));
    assert_eq!(bench.ledger.coupon(coupon).await.unwrap().unwrap().issued, 3);
    assert_eq!(bench.ledger.self_check().await.unwrap(), Vec::new());
}

/// The rows before a refused one in its statement are neither lost nor written twice.
pub(super) async fn a_refused_row_takes_nothing_with_it(bench: Arc<Bench>) {
    bench.poison().await;
    let coupon = CouponId::random();
    let mut everybody = names("u", 0..7);
    everybody[2] = "poison".to_owned();
    assert_eq!(bench.ledger.commit(&wins(coupon, 10, 0, &everybody)).await.unwrap().rows, 6);
    let view = bench.ledger.audit_view(0, Some(coupon), usize::MAX).await.unwrap().unwrap();
    let mut written: Vec<_> = view.issued.iter().map(|row| (row.sequence, row.user.as_str().to_owned())).collect();
    written.sort();
    let expected: Vec<_> = (1..).zip(everybody).filter(|(sequence, _)| *sequence != 3).collect();
    assert_eq!(written, expected);
    assert_eq!(only_letter(&bench).await.log_offset, 2);
}

pub(super) async fn a_replay_writes_the_kept_sequence(bench: Arc<Bench>) {
    let coupon = poisoned(&bench).await;
    let id = only_letter(&bench).await.id;
    // Still refused: nothing changes.
    assert!(matches!(bench.ledger.replay(id).await, Ok(ReplayOutcome::Refused(_))));
    assert_eq!(only_letter(&bench).await.state, DeadLetterState::Open);
    bench.cure().await;
    let other = bench.another();
    let (a, b) = tokio::join!(bench.ledger.replay(id), other.replay(id));
    let mut outcomes = [a.unwrap(), b.unwrap()];
    outcomes.sort_by_key(|outcome| *outcome != ReplayOutcome::Replayed);
    assert_eq!(outcomes, [ReplayOutcome::Replayed, ReplayOutcome::State(DeadLetterState::Replayed)]);
    let row = bench.ledger.issued(coupon, &user("poison")).await.unwrap().unwrap();
    assert_eq!((row.sequence, row.log_offset, row.requested_at), (2, 1, 77));
    assert_eq!(bench.ledger.replay(id).await.unwrap(), ReplayOutcome::State(DeadLetterState::Replayed));
    assert_eq!(bench.ledger.replay(id + 1_000).await.unwrap(), ReplayOutcome::NotFound);
    assert_eq!(bench.ledger.abandon(id).await.unwrap().unwrap().state, DeadLetterState::Replayed);
    assert_eq!(bench.ledger.unsettled(coupon).await.unwrap(), 0);
    assert_eq!(bench.ledger.self_check().await.unwrap(), Vec::new());
}

/// It read the letter as open, and waits at its lock while somebody else abandons it. SQLite has one writer at a time, so nobody waits there.
pub(super) async fn a_replay_that_comes_second_does_nothing(bench: Arc<Bench>) {
    let Raw::Mysql { url, .. } = &bench.raw else { return };
    let coupon = poisoned(&bench).await;
    bench.cure().await;
    let id = only_letter(&bench).await.id;
    let opts = mysql_async::OptsBuilder::from_opts(mysql_async::Opts::from_url(url).unwrap()).prefer_socket(false);
    let mut first = mysql_async::Conn::new(opts).await.unwrap();
    first.query_drop("BEGIN").await.unwrap();
    first.query_drop(format!("UPDATE dead_letters SET state = 'abandoning' WHERE id = {id}")).await.unwrap();
    let replaying = tokio::spawn({
        let ledger = bench.another();
        async move { ledger.replay(id).await }
    });
    // The texts of everybody's statements pass through MySQL's information_schema, which fails at one that its character set cannot hold.
    let list = if matches!(bench.kind, Kind::Mysql) { "performance_schema" } else { "information_schema" };
    let waiting = format!("SELECT COUNT(*) FROM {list}.processlist WHERE db = DATABASE() AND info LIKE 'UPDATE `dead_letters`%'");
    while !replaying.is_finished() && first.query_first::<i64, _>(&waiting).await.unwrap() == Some(0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.query_drop("COMMIT").await.unwrap();
    assert_eq!(replaying.await.unwrap().unwrap(), ReplayOutcome::State(DeadLetterState::Abandoning));
    assert_eq!(bench.ledger.issued(coupon, &user("poison")).await.unwrap(), None);
    assert_eq!(only_letter(&bench).await.state, DeadLetterState::Abandoning);
}

pub(super) async fn an_abandoned_win_is_revoked_by_the_commit(bench: Arc<Bench>) {
    let coupon = poisoned(&bench).await;
    let id = only_letter(&bench).await.id;
    for _ in 0..2 {
        assert_eq!(bench.ledger.abandon(id).await.unwrap().unwrap().state, DeadLetterState::Abandoning);
    }
    assert_eq!(bench.ledger.abandon(id + 1_000).await.unwrap(), None);
    assert_eq!(bench.ledger.replay(id).await.unwrap(), ReplayOutcome::State(DeadLetterState::Abandoning));
    assert_eq!(state_of_poison(&bench, coupon).await, Some(UserState::Holder(2)));
    let mut batch = step(0, 3, 4);
    batch.coupons.push(coupon_row(coupon, 10, 2, 4));
    let reason = "x".repeat(3_000);
    let row = RevocationRow { coupon, user: user("poison"), sequence: 2, won_offset: 0, log_offset: 3, reason, at: 88 };
    batch.revocations.push(row.clone());
    bench.ledger.commit(&batch).await.unwrap();
    assert_eq!(bench.ledger.dead_letter(id).await.unwrap().unwrap().state, DeadLetterState::Abandoned);
    assert_eq!(bench.ledger.abandon(id).await.unwrap().unwrap().state, DeadLetterState::Abandoned);
    assert_eq!(state_of_poison(&bench, coupon).await, Some(UserState::Revoked(2)));
    assert_eq!(bench.ledger.audit_view(0, None, usize::MAX).await.unwrap().unwrap().revocations, [RevocationRow { won_offset: 1, ..row }]);
    assert_eq!(bench.ledger.self_check().await.unwrap(), Vec::new());
}

pub(super) async fn unreadable_messages_are_kept_and_listed(bench: Arc<Bench>) {
    let letter = |log_offset| DeadLetter {
        id: 0,
        partition: 0,
        log_offset,
        win: None,
        error: "ü".repeat(5_000),
        key: vec![0xff; 3],
        value: vec![7; DEAD_LETTER_BYTES * 2],
        state: DeadLetterState::Open,
        created_at: 1,
        updated_at: 2,
    };
    let batch = Batch { dead_letters: (0..5).map(letter).collect(), ..step(0, 0, 5) };
    bench.ledger.commit(&batch).await.unwrap();
    let first = bench.ledger.dead_letters(Some(DeadLetterState::Open), Page { limit: 2, after: None }).await.unwrap();
    assert_eq!(first.iter().map(|letter| letter.log_offset).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((first[0].key.as_slice(), first[0].value.len(), first[0].created_at), ([0xff; 3].as_slice(), DEAD_LETTER_BYTES, 1));
    let rest = bench.ledger.dead_letters(None, Page { limit: 9, after: Some(first[1].id) }).await.unwrap();
    assert_eq!(rest.iter().map(|letter| letter.log_offset).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(bench.ledger.replay(first[0].id).await.unwrap(), ReplayOutcome::NotAWin);
    assert_eq!(bench.ledger.abandon(first[0].id).await.unwrap().unwrap().state, DeadLetterState::Abandoned);
    assert_eq!(bench.ledger.replay(first[0].id).await.unwrap(), ReplayOutcome::State(DeadLetterState::Abandoned));
    let counts = bench.ledger.dead_letter_counts().await.unwrap();
    assert_eq!((counts[&DeadLetterState::Open], counts[&DeadLetterState::Abandoned], counts[&DeadLetterState::Replayed]), (4, 1, 0));
    assert_eq!(bench.ledger.dead_letter(-1).await.unwrap(), None);
    assert_eq!(bench.ledger.self_check().await.unwrap(), Vec::new());
}
