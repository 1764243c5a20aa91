//! Batches, reads and snapshots.

use super::*;

pub(super) async fn a_batch_is_loaded_back(bench: Arc<Bench>) {
    let coupon = CouponId::random();
    let mut batch = wins(coupon, 10, 0, &names("u", 0..3));
    batch.terms.push(TermsRow { coupon, terms: batch.coupons[0].terms.clone(), log_offset: 0 });
    let before = crate::domain::now_millis();
    let committed = bench.ledger.commit(&batch).await.unwrap();
    assert_eq!(committed, Committed { rows: 3, dead: Vec::new() });

    let wanted = HashMap::from([(coupon, vec![user("u1"), user("nobody")]), (CouponId::random(), vec![user("u1")])]);
    let loaded = bench.ledger.load(&[0, 1], &wanted).await.unwrap();
    assert_eq!(loaded.positions[&0], Position { partition: 0, next: 3, fingerprint: 21 });
    assert_eq!(loaded.positions[&1].next, 0);
    assert_eq!(loaded.positions.len(), 2);
    assert_eq!(loaded.coupons, HashMap::from([(coupon, batch.coupons[0].clone())]));
    assert_eq!(loaded.users, HashMap::from([(coupon, HashMap::from([(user("u1"), UserState::Holder(2))]))]));

    assert_eq!(bench.ledger.coupon(coupon).await.unwrap().as_ref(), Some(&batch.coupons[0]));
    assert_eq!(bench.ledger.coupon(CouponId::random()).await.unwrap(), None);
    let row = bench.ledger.issued(coupon, &user("u2")).await.unwrap().unwrap();
    assert_eq!((row.sequence, row.log_offset, row.requested_at), (3, 2, 77));
    assert!(row.issued_at >= before);
    assert_eq!(bench.ledger.issued(coupon, &user("u9")).await.unwrap(), None);

    let view = bench.ledger.audit_view(0, None, usize::MAX).await.unwrap().unwrap();
    assert_eq!((view.position.next, view.issued.len(), view.terms.len(), view.coupons.len()), (3, 3, 1, 1));
    assert_eq!(view.terms, batch.terms);
    assert_eq!(bench.ledger.audit_view(0, Some(coupon), usize::MAX).await.unwrap().unwrap().issued, view.issued);
    assert!(bench.ledger.audit_view(1, None, usize::MAX).await.unwrap().unwrap().coupons.is_empty());
    assert_eq!(bench.ledger.positions().await.unwrap().len(), 4);

    // The same row again, unchanged but for the offset, is an update.
    let again = Batch { coupons: batch.coupons.clone(), ..step(0, 3, 4) };
    bench.ledger.commit(&again).await.unwrap();
    assert!(bench.ledger.pool().1 >= 1);
}

pub(super) async fn a_large_batch_is_written_in_chunks(bench: Arc<Bench>) {
    let coupon = CouponId::random();
    let everybody = names("user-", 0..2_500);
    let committed = bench.ledger.commit(&wins(coupon, 5_000, 0, &everybody)).await.unwrap();
    assert_eq!(committed.rows, 2_500);
    let wanted = HashMap::from([(coupon, everybody.iter().map(|name| user(name)).collect())]);
    assert_eq!(bench.ledger.load(&[0], &wanted).await.unwrap().users[&coupon].len(), 2_500);
    assert_eq!(snapshot(&*bench.ledger).await.users.len(), 2_500);
}

pub(super) async fn a_stale_owner_leaves_nothing(bench: Arc<Bench>) {
    let coupon = CouponId::random();
    bench.ledger.commit(&step(0, 0, 5)).await.unwrap();
    let mut stale = wins(coupon, 10, 0, &names("u", 0..3));
    stale.moves.insert(0, Move { partition: 1, from: 0, to: 9, fingerprint: 1 });
    assert!(matches!(bench.ledger.commit(&stale).await, Err(LedgerError::Fenced(0))));
    let seen = snapshot(&*bench.ledger).await;
    assert_eq!((seen.positions[&0].next, seen.positions[&1].next), (5, 0));
    assert!(seen.coupons.is_empty() && seen.users.is_empty());
}

pub(super) async fn of_two_racing_writers_one_wins(bench: Arc<Bench>) {
    let other = bench.another();
    for round in 0..10 {
        let coupon = CouponId::random();
        let mut a = wins(coupon, 10, 0, &["a".to_owned()]);
        let mut b = wins(coupon, 10, 0, &["b".to_owned()]);
        a.moves = step(0, round, round + 1).moves;
        b.moves = step(0, round, round + 1).moves;
        let (a, b) = tokio::join!(bench.ledger.commit(&a), other.commit(&b));
        let won = [&a, &b].into_iter().filter(|result| result.is_ok()).count();
        assert_eq!(won, 1, "{a:?} {b:?}");
        assert!([a, b].into_iter().any(|result| matches!(result, Err(LedgerError::Fenced(0)))));
        let rows = bench.ledger.audit_view(0, Some(coupon), usize::MAX).await.unwrap().unwrap().issued.len();
        assert_eq!(rows, 1);
    }
}

pub(super) async fn a_snapshot_is_of_one_instant(bench: Arc<Bench>) {
    let coupon = CouponId::random();
    let writer = bench.another();
    let task = tokio::spawn(async move {
        for round in 0..60_i64 {
            let from = round * 20;
            writer.commit(&wins(coupon, 100_000, from, &names("u", from..from + 20))).await.unwrap();
        }
    });
    let mut moments = std::collections::HashSet::new();
    while !task.is_finished() {
        let seen = snapshot(&*bench.ledger).await;
        let next = seen.positions[&0].next;
        assert_eq!(i64::try_from(seen.users.len()).unwrap(), next);
        assert_eq!(seen.coupons.get(&coupon).map_or(0, |(row, _)| row.issued), next);
        assert_eq!(seen.doubles, 0);
        let loaded = bench.ledger.load(&[0], &HashMap::from([(coupon, vec![user("u0")])])).await.unwrap();
        assert_eq!(loaded.coupons.get(&coupon).map_or(0, |row| row.issued), loaded.positions[&0].next);
        let view = bench.ledger.audit_view(0, None, usize::MAX).await.unwrap().unwrap();
        assert_eq!(i64::try_from(view.issued.len()).unwrap(), view.position.next);
        assert_eq!(bench.ledger.self_check().await.unwrap(), Vec::new());
        moments.insert(next);
    }
    task.await.unwrap();
    assert!(moments.len() > 1, "the snapshots never met a commit");
}

pub(super) async fn a_snapshot_leaves_out_users_of_what_is_over(bench: Arc<Bench>) {
    bench.poison().await;
    let (over, unsettled) = (CouponId::random(), CouponId::random());
    let mut batch = wins(over, 10, 0, &names("u", 0..2));
    batch.coupons[0].terms.status = Status::Closed;
    bench.ledger.commit(&batch).await.unwrap();
    let mut batch = wins(unsettled, 10, 0, &["u0".to_owned(), "poison".to_owned()]);
    batch.moves = step(0, 2, 4).moves;
    batch.issued[0].log_offset = 2;
    batch.issued[1].log_offset = 3;
    batch.coupons[0].terms.status = Status::Closed;
    bench.ledger.commit(&batch).await.unwrap();
    let seen = snapshot(&*bench.ledger).await;
    assert!(seen.coupons[&over].1);
    assert!(!seen.coupons[&unsettled].1);
    let mut users: Vec<_> = seen.users.into_iter().collect();
    users.sort_by(|a, b| a.0.1.cmp(&b.0.1));
    assert_eq!(users, [((unsettled, "poison".to_owned()), UserState::Holder(2)), ((unsettled, "u0".to_owned()), UserState::Holder(1))]);
}

pub(super) async fn alice_is_not_alice(bench: Arc<Bench>) {
    let coupon = CouponId::random();
    let batch = wins(coupon, 10, 0, &["Alice".to_owned(), "alice".to_owned()]);
    assert_eq!(bench.ledger.commit(&batch).await.unwrap().rows, 2);
    assert_eq!(bench.ledger.issued(coupon, &user("alice")).await.unwrap().unwrap().sequence, 2);
    assert_eq!(bench.ledger.issued(coupon, &user("ALICE")).await.unwrap(), None);
}

fn revocation(coupon: CouponId, name: &str, sequence: Sequence, log_offset: Offset) -> RevocationRow {
    RevocationRow { coupon, user: user(name), sequence, won_offset: -1, log_offset, reason: "asked for it".to_owned(), at: 88 }
}

pub(super) async fn a_revoked_win_frees_its_row(bench: Arc<Bench>) {
    let coupon = CouponId::random();
    bench.ledger.commit(&wins(coupon, 10, 0, &names("u", 0..3))).await.unwrap();
    let mut batch = step(0, 3, 4);
    batch.coupons.push(coupon_row(coupon, 10, 2, 4));
    batch.revocations.push(revocation(coupon, "u1", 2, 3));
    bench.ledger.commit(&batch).await.unwrap();
    assert_eq!(bench.ledger.issued(coupon, &user("u1")).await.unwrap(), None);
    let loaded = bench.ledger.load(&[], &HashMap::from([(coupon, vec![user("u1")])])).await.unwrap();
    assert_eq!(loaded.users[&coupon][&user("u1")], UserState::Revoked(2));
    let view = bench.ledger.audit_view(0, Some(coupon), usize::MAX).await.unwrap().unwrap();
    assert_eq!(view.revocations, [RevocationRow { won_offset: 1, ..revocation(coupon, "u1", 2, 3) }]);
    let seen = snapshot(&*bench.ledger).await;
    assert_eq!(seen.users[&(coupon, "u1".to_owned())], UserState::Revoked(2));
    assert_eq!(bench.ledger.self_check().await.unwrap(), Vec::new());
}

pub(super) async fn a_user_may_win_and_lose_in_one_batch(bench: Arc<Bench>) {
    bench.poison().await;
    let coupon = CouponId::random();
    let mut batch = wins(coupon, 10, 0, &["u0".to_owned(), "poison".to_owned(), "u2".to_owned()]);
    batch.moves = step(0, 0, 5).moves;
    batch.coupons = vec![coupon_row(coupon, 10, 1, 4)];
    batch.revocations = vec![revocation(coupon, "u0", 1, 3), revocation(coupon, "poison", 2, 4)];
    bench.ledger.commit(&batch).await.unwrap();
    let letters = bench.ledger.dead_letters(None, Page { limit: 10, after: None }).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.state).collect::<Vec<_>>(), [DeadLetterState::Abandoned]);
    let offsets: Vec<_> =
        bench.ledger.audit_view(0, None, usize::MAX).await.unwrap().unwrap().revocations.iter().map(|row| row.won_offset).collect();
    assert_eq!(offsets, [0, 1]);
    assert_eq!(bench.ledger.self_check().await.unwrap(), Vec::new());
}

pub(super) async fn a_revoke_of_nothing_is_a_guard(bench: Arc<Bench>) {
    let coupon = CouponId::random();
    let mut batch = wins(coupon, 10, 0, &names("u", 0..2));
    batch.revocations.push(revocation(coupon, "u1", 1, 2));
    assert!(matches!(bench.ledger.commit(&batch).await, Err(LedgerError::Guard(_))));
    assert_eq!(bench.ledger.positions().await.unwrap()[0].next, 0);
}

pub(super) async fn guards_fire(bench: Arc<Bench>) {
    let coupon = CouponId::random();
    bench.ledger.commit(&wins(coupon, 10, 0, &names("u", 0..2))).await.unwrap();
    // The same user again, the same sequence again, more than there are.
    let mut again = wins(coupon, 10, 2, &["u0".to_owned()]);
    let Err(LedgerError::Guard(text)) = bench.ledger.commit(&again).await else { panic!("no guard") };
    assert!(text.contains("user"), "{text}");
    again.issued = vec![win(coupon, "new", 2, 2)];
    assert!(matches!(bench.ledger.commit(&again).await, Err(LedgerError::Guard(_))));
    again.issued = vec![win(coupon, "new", 3, 2)];
    again.coupons[0].issued = 11;
    let Err(LedgerError::Guard(text)) = bench.ledger.commit(&again).await else { panic!("no guard") };
    assert!(text.contains("coupons_issued_within_total"), "{text}");
    let seen = snapshot(&*bench.ledger).await;
    assert_eq!((seen.positions[&0].next, seen.users.len()), (2, 2));
    again.coupons[0].issued = 3;
    bench.ledger.commit(&again).await.unwrap();
}

pub(super) async fn a_users_coupons_come_newest_first(bench: Arc<Bench>) {
    let mut coupons = Vec::new();
    for round in 0..5 {
        let coupon = CouponId::random();
        let mut batch = wins(coupon, 10, 0, &["u".to_owned(), "v".to_owned()]);
        batch.moves = step(0, round, round + 1).moves;
        bench.ledger.commit(&batch).await.unwrap();
        coupons.push(coupon);
    }
    // Two rows of one moment are told apart by their coupon.
    bench.sql(&format!("UPDATE issued_coupons SET issued_at = 5 WHERE coupon_id IN ('{}', '{}')", coupons[0], coupons[1])).await;
    for (at, coupon) in coupons.iter().enumerate().skip(2) {
        bench.sql(&format!("UPDATE issued_coupons SET issued_at = {} WHERE coupon_id = '{coupon}'", at * 10)).await;
    }
    let mut expected = vec![coupons[4], coupons[3], coupons[2]];
    expected.extend([coupons[0].max(coupons[1]), coupons[0].min(coupons[1])]);
    let mut got = Vec::new();
    let mut after = None;
    loop {
        let page = bench.ledger.coupons_of(&user("u"), Page { limit: 2, after }).await.unwrap();
        let Some((last, terms)) = page.last() else { break };
        assert_eq!(terms.name, "Früh dran 🎟");
        after = Some((last.issued_at, last.coupon));
        got.extend(page.iter().map(|(row, _)| row.coupon));
    }
    assert_eq!(got, expected);
}
