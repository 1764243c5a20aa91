//! The service through its front door: the real binary, real servers, HTTP. Every test ends with the audit.
//!
//! The servers come from `make test` (`scripts/stack.sh up`); a missing one fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests wait and kill")]

mod architecture;
mod distributed;
mod embedded;
mod faults;
mod hostile;
mod identity;
mod operations;
mod promise;
mod support;
