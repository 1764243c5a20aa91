//! The service through its front door: the real binary, real servers, HTTP. Every test ends with the audit.
//!
//! The servers come from `make test` (`scripts/stack.sh up`); a missing one fails the test. Run with `--all-features`: without the feature
//! `kill-points` the binary has no steps to be killed at, and those tests are left out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests wait and kill")]

mod architecture;
mod audit;
mod brokers;
mod distributed;
mod embedded;
mod faults;
mod hostile;
mod identity;
#[cfg(feature = "kill-points")]
mod kill_points;
mod letters;
mod model;
mod operations;
mod outage;
mod promise;
mod runbook;
mod secured;
mod support;
