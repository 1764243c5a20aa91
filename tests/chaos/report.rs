//! What a run found, and its table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::crowd::{Answer, Kind};
use crate::faults::Window;
use crate::plan::Fault;

/// Violations of the promise and things worth a line, collected from everywhere.
#[derive(Debug, Clone, Default)]
pub struct Findings(Arc<Mutex<(Vec<String>, Vec<String>)>>);

impl Findings {
    pub fn violation(&self, promise: &str, what: &str) {
        let mut found = self.0.lock().unwrap();
        // One cause may break thousands of answers.
        if found.0.len() < 200 {
            println!("VIOLATION {promise}: {what}");
        }
        found.0.push(format!("{promise}: {what}"));
    }

    pub fn note(&self, what: &str) {
        println!("  note: {what}");
        self.0.lock().unwrap().1.push(what.to_owned());
    }

    pub fn violations(&self) -> Vec<String> {
        self.0.lock().unwrap().0.clone()
    }

    pub fn notes(&self) -> Vec<String> {
        self.0.lock().unwrap().1.clone()
    }
}

/// One fault that was made, and how the service came back.
#[derive(Debug, Clone)]
pub struct Strike {
    pub fault: Fault,
    /// Another fault was made meanwhile: what users saw cannot be laid to one of them.
    pub doubled: bool,
    pub window: Window,
    /// When every API answered new users again; `None`: not in time.
    pub back: Option<Instant>,
    pub violations: usize,
}

#[derive(Debug, Default)]
struct Line {
    times: usize,
    requests: usize,
    kinds: BTreeMap<Kind, usize>,
    longest_gap: Duration,
    slowest: Duration,
    recovery: Duration,
    lost: usize,
    violations: usize,
}

fn millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

/// One line a kind of fault.
pub fn table(strikes: &[Strike], answers: &[Answer], embedded: usize) -> String {
    // Two at once: a line of their own, the last.
    let mut lines: BTreeMap<(bool, Option<Fault>), Line> = BTreeMap::new();
    for strike in strikes {
        let until = strike.back.unwrap_or(strike.window.healed).max(strike.window.healed);
        let line = lines.entry((strike.doubled, (!strike.doubled).then_some(strike.fault))).or_default();
        let is_embedded = strike.fault.part() == crate::plan::Part::Embedded;
        let mut last = strike.window.from;
        let mut gap = Duration::ZERO;
        let during = answers.iter().filter(|answer| (answer.api == embedded) == is_embedded);
        // In the order they were answered: they were recorded so.
        for answer in during.filter(|answer| answer.answered >= strike.window.from && answer.answered <= until) {
            line.requests += 1;
            *line.kinds.entry(answer.kind).or_default() += 1;
            if answer.kind != Kind::NoAnswer {
                line.slowest = line.slowest.max(answer.answered - answer.asked);
            }
            if answer.kind.is_service() && !answer.repeat {
                gap = gap.max(answer.answered.saturating_duration_since(last));
                last = last.max(answer.answered);
            }
        }
        line.times += 1;
        line.longest_gap = line.longest_gap.max(gap.max(until.saturating_duration_since(last)));
        match strike.back {
            Some(back) => line.recovery = line.recovery.max(back.saturating_duration_since(strike.window.healed)),
            None => line.lost += 1,
        }
        line.violations += strike.violations;
    }
    let mut text = String::from(
        "| fault | times | requests | 202 | 200 | sold out | closed, paused | 503 | 429 | no answer | slowest answer, s | longest without 2xx/409, s | back after, s | violations |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for ((_, fault), line) in &lines {
        let count = |kind| line.kinds.get(&kind).copied().unwrap_or(0);
        let recovery = if line.lost > 0 { "never".to_owned() } else { millis(line.recovery) };
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {recovery} | {} |\n",
            fault.map_or("two of these at once", Fault::name),
            line.times,
            line.requests,
            count(Kind::Accepted),
            count(Kind::Already),
            count(Kind::SoldOut),
            count(Kind::Closed) + count(Kind::Paused),
            count(Kind::Unavailable),
            count(Kind::TooMany),
            count(Kind::NoAnswer),
            millis(line.slowest),
            millis(line.longest_gap),
            line.violations,
        ));
    }
    text
}
