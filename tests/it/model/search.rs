//! The search: every state that any order of steps leads to, breadth first, so that the first trace found is a shortest one.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::hash::Hash;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::scene::{Scene, Step};
use super::state::{Broken, State};

/// What a search saw.
#[derive(Debug)]
pub struct Searched {
    pub states: usize,
    /// Steps of the longest of the shortest ways to a state.
    pub depth: usize,
    /// The first broken state, and the steps to it.
    pub broken: Option<(Broken, Vec<Step>)>,
}

/// 128 bits stand for a state: of a million states two are taken for one with a chance of less than one in 10^26. States that differ only in
/// which of two equal processes is which are one.
fn print_of(scene: &Scene, state: &State) -> u128 {
    let mut sorted = state.clone();
    sorted.consumers.sort_unstable();
    if scene.asking[0] == scene.asking[1] {
        sorted.apis.sort_unstable();
    }
    let mut hasher = SipHasher13::new();
    sorted.hash(&mut hasher);
    hasher.finish128().as_u128()
}

pub fn search(scene: &Scene) -> Searched {
    let first = scene.first_state();
    let mut seen = HashSet::from([print_of(scene, &first)]);
    // How each state was first reached: from which, by which step.
    let mut origins: Vec<(usize, Option<Step>)> = vec![(0, None)];
    let mut frontier = VecDeque::from([(first, 0, 0)]);
    let mut depth = 0;
    while let Some((state, index, steps_to)) = frontier.pop_front() {
        depth = steps_to;
        if let Some(broken) = scene.broken(&state) {
            return Searched { states: seen.len(), depth, broken: Some((broken, way_to(&origins, index))) };
        }
        for step in scene.steps(&state) {
            let next = scene.take(&state, step);
            if seen.insert(print_of(scene, &next)) {
                origins.push((index, Some(step)));
                frontier.push_back((next, origins.len() - 1, steps_to + 1));
            }
        }
    }
    Searched { states: seen.len(), depth, broken: None }
}

fn way_to(origins: &[(usize, Option<Step>)], mut index: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while let (from, Some(step)) = origins[index] {
        steps.push(step);
        index = from;
    }
    steps.reverse();
    steps
}

/// The steps as a list to read, with the log and the ledger they end in.
pub fn tell(scene: &Scene, broken: Broken, steps: &[Step]) -> String {
    let mut state = scene.first_state();
    let mut text = format!("{broken:?} in scene \"{}\", log {:?}:\n", scene.name, scene.log);
    for (number, step) in steps.iter().enumerate() {
        state = scene.take(&state, *step);
        writeln!(text, "  {:>2}. {step}", number + 1).unwrap();
    }
    writeln!(text, "  log    {:?}\n  told   {:?}", state.log, state.told).unwrap();
    let ledger = &state.ledger;
    let (rows, revocations, letters) = (ledger.rows, ledger.revocations, ledger.letters.map(|letter| (letter.sequence, letter.state)));
    writeln!(text, "  ledger up to {}: rows {rows:?}, revocations {revocations:?}, letters {letters:?}", ledger.next).unwrap();
    text
}
