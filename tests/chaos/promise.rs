//! P1 to P7, checked from the recorded answers, the tables and the log.

use std::collections::{HashMap, HashSet};

use crate::admin::Change;
use crate::books::{Row, Story, Tables};
use crate::crowd::{Answer, Coupon, Kind};
use crate::report::Findings;

/// One side of a run: the distributed service or the embedded one.
#[derive(Debug)]
pub struct Evidence<'a> {
    pub coupons: Vec<(usize, &'a Coupon)>,
    pub answers: Vec<&'a Answer>,
    pub changes: Vec<&'a Change>,
    pub stories: HashMap<String, Story>,
    pub unreadable: HashSet<(i32, i64)>,
    pub tables: Tables,
}

pub fn check(evidence: &Evidence<'_>, findings: &Findings) {
    let mut rows: HashMap<&str, Vec<&Row>> = HashMap::new();
    for row in &evidence.tables.rows {
        rows.entry(row.coupon.as_str()).or_default().push(row);
    }
    let mut letters: HashMap<&str, Vec<&Row>> = HashMap::new();
    for letter in &evidence.tables.letters {
        letters.entry(letter.coupon.as_str()).or_default().push(letter);
    }
    let none = Vec::new();
    for (index, coupon) in &evidence.coupons {
        let Some(story) = evidence.stories.get(&coupon.id) else {
            if evidence.changes.iter().any(|change| change.coupon == *index) {
                findings.violation("P3", &format!("coupon {}: created by an answer, not in the log", coupon.id));
            }
            continue;
        };
        let rows = rows.get(coupon.id.as_str()).unwrap_or(&none);
        let letters = letters.get(coupon.id.as_str()).unwrap_or(&none);
        check_rows(coupon, story, rows, letters, findings);
        let answers: Vec<_> = evidence.answers.iter().filter(|answer| answer.coupon == *index).copied().collect();
        check_answers(coupon, story, rows, letters, &answers, findings);
        for change in evidence.changes.iter().filter(|change| change.coupon == *index) {
            match story.versions.get(&change.version) {
                Some((total, status)) if *total == change.total && *status == change.status => {}
                found => findings.violation("P3", &format!("coupon {}: {change:?} was answered, the log says {found:?}", coupon.id)),
            }
        }
    }
    check_nothing_is_dropped(evidence, findings);
}

fn check_rows(coupon: &Coupon, story: &Story, rows: &[&Row], letters: &[&Row], findings: &Findings) {
    let id = &coupon.id;
    let held = i64::try_from(rows.len() + letters.len()).unwrap();
    if held > story.total {
        findings.violation("P1", &format!("coupon {id}: {held} issued of {}", story.total));
    }
    let mut users = HashSet::new();
    let mut sequences = HashSet::new();
    for row in rows.iter().chain(letters) {
        if !users.insert(row.user.as_str()) {
            findings.violation("P2", &format!("coupon {id}: {} has it twice", row.user));
        }
        if !sequences.insert(row.sequence) {
            findings.violation("P2", &format!("coupon {id}: sequence {} is given twice", row.sequence));
        }
        if story.holders.get(&row.user) != Some(&row.sequence) {
            let by_log = story.holders.get(&row.user);
            findings.violation("P3", &format!("coupon {id}: {} has sequence {}, the log says {by_log:?}", row.user, row.sequence));
        }
    }
    for (user, sequence) in &story.holders {
        if !users.contains(user.as_str()) {
            findings.violation("P3", &format!("coupon {id}: {user} won sequence {sequence} in the log and has no row"));
        }
    }
    // The end of the run asks for every open coupon until it is sold out.
    if story.status == "OPEN" && held != story.total {
        findings.violation("P4", &format!("coupon {id}: {held} issued of {} although more asked", story.total));
    }
    if story.strays > 0 {
        findings.violation("P3", &format!("coupon {id}: {} records outside of its partition", story.strays));
    }
}

fn check_answers(coupon: &Coupon, story: &Story, rows: &[&Row], letters: &[&Row], answers: &[&Answer], findings: &Findings) {
    let id = &coupon.id;
    let by_user: HashMap<&str, &Row> = rows.iter().chain(letters).map(|row| (row.user.as_str(), *row)).collect();
    let mut yes: HashMap<&str, &Answer> = HashMap::new();
    for answer in answers.iter().filter(|answer| answer.kind.is_yes()) {
        let user = &*answer.user;
        match by_user.get(user) {
            None => findings.violation("P3", &format!("coupon {id}: {user} was told {:?} and has no row", answer.kind)),
            Some(row) if row.sequence != answer.sequence => {
                findings
                    .violation("P5", &format!("coupon {id}: {user} was told sequence {}, the row says {}", answer.sequence, row.sequence));
            }
            Some(row) if row.issue_id.is_some() && row.issue_id.as_deref() != answer.issue_id.as_deref() => {
                findings
                    .violation("P5", &format!("coupon {id}: {user} was told issue {:?}, the row says {:?}", answer.issue_id, row.issue_id));
            }
            Some(_) => {}
        }
        let first = yes.entry(user).or_insert(answer);
        if (first.sequence, &first.issue_id) != (answer.sequence, &answer.issue_id) {
            findings.violation("P5", &format!("coupon {id}: {user} was told {first:?} and {answer:?}"));
        }
        if answer.answered < first.answered {
            *first = answer;
        }
    }
    let raised = coupon.restocked.load(std::sync::atomic::Ordering::Relaxed);
    for answer in answers {
        let user = &*answer.user;
        if let Some(first) = yes.get(user)
            && answer.asked > first.answered
            && matches!(answer.kind, Kind::SoldOut | Kind::Closed | Kind::Paused)
        {
            findings.violation("P5", &format!("coupon {id}: {user} was told yes and then {:?}", answer.kind));
        }
        let said = |status: &str| story.versions.values().any(|(_, found)| found == status);
        let honest = match answer.kind {
            // Without a restock "sold out" is for good.
            Kind::SoldOut => story.ever_sold_out && (raised || yes.contains_key(user) || !by_user.contains_key(user)),
            Kind::Closed => said("CLOSED"),
            Kind::Paused => said("PAUSED"),
            _ => true,
        };
        if !honest {
            findings.violation("P6", &format!("coupon {id}: {user} was told {:?}, which was not so", answer.kind));
        }
    }
}

fn check_nothing_is_dropped(evidence: &Evidence<'_>, findings: &Findings) {
    for place in &evidence.unreadable {
        if !evidence.tables.letter_records.contains(place) {
            findings.violation("P7", &format!("the unreadable record at {place:?} is no dead letter"));
        }
    }
    let known: HashSet<&str> = evidence.coupons.iter().map(|(_, coupon)| coupon.id.as_str()).collect();
    for row in evidence.tables.rows.iter().filter(|row| !known.contains(row.coupon.as_str())) {
        findings.violation("P1", &format!("a row of a coupon nobody created: {row:?}"));
    }
    for (coupon, total, issued, status) in &evidence.tables.coupons {
        let Some(story) = evidence.stories.get(coupon) else {
            findings.violation("P3", &format!("coupon {coupon} is in the tables, not in the log"));
            continue;
        };
        if (*total, *issued, status) != (story.total, story.issued, &story.status) {
            let detail = format!(
                "coupon {coupon}: the tables say {total}, {issued}, {status}; the log {}, {}, {}",
                story.total, story.issued, story.status
            );
            findings.violation("P3", &detail);
        }
    }
}
