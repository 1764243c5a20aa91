//! How a process lives: supervised tasks, signals, an ordered and bounded shutdown, word to systemd.

mod supervisor;
mod systemd;

pub use supervisor::{Outcome, Supervisor};
pub use systemd::Systemd;
