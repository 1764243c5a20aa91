//! How a process lives: supervised tasks, signals, an ordered and bounded shutdown, word to systemd.

pub mod service;
mod supervisor;
mod systemd;

pub use supervisor::{Outcome, Supervisor};
pub use systemd::Systemd;
